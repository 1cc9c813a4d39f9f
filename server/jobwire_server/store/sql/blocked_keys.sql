-- A page of the keys of a queue that a failed job holds up: which job it is, when it failed (null: it is not kept any more), and how many wait behind it, counted up to `most`.
SELECT f.key, f.id, (SELECT max(a.finished_at) FROM jobwire.archive a WHERE a.queue = %(queue)s AND a.id = f.id AND a.state = 6) AS since,
    (SELECT count(*) FROM (SELECT FROM jobwire.blocked b WHERE b.queue = %(queue)s AND b.gate = f.gate LIMIT %(most)s) w)::int AS waiting
FROM (
    SELECT s.gate, substr(s.gate, 2) AS key, s.id FROM jobwire.slot s
    WHERE s.queue = %(queue)s AND s.failed AND s.gate >= 'k' AND s.gate < 'l' AND (%(after)s::text IS NULL OR s.gate > 'k' || %(after)s::text)
    ORDER BY s.gate LIMIT %(limit)s
) f ORDER BY f.gate
