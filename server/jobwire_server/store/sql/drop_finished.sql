-- Removes finished jobs of one queue for good.
DELETE FROM jobwire.archive a WHERE a.queue = %(queue)s AND a.id = ANY (%(ids)b::uuid[]) RETURNING a.id
