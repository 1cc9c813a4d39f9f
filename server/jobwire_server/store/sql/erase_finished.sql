-- Removes what finished jobs of one queue carry; their skeleton stays.
UPDATE jobwire.archive a SET data = 'null', headers = NULL, progress = NULL, errors = NULL, output = NULL, checkpoint = NULL, origin = NULL
WHERE a.queue = %(queue)s AND a.id = ANY (%(ids)b::uuid[])
RETURNING a.id
