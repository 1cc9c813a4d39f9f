-- A page of what operators did, newest first.
SELECT id, at, actor, what, queue, selection, matched, changed FROM jobwire.action
WHERE (%(queue)s::text IS NULL OR queue = %(queue)s::text) AND (%(actor)s::text IS NULL OR actor = %(actor)s::text) AND (%(before)s::int8 IS NULL OR id < %(before)s::int8)
ORDER BY id DESC LIMIT %(limit)s
