-- The valid leases of some claims of one queue.
SELECT m.id, c.token, m.place
FROM jobwire.claim c
CROSS JOIN LATERAL unnest(c.ids, c.attempts) WITH ORDINALITY AS m (id, attempt, place)
JOIN jobwire.live_job j ON j.queue = c.queue AND j.id = m.id AND j.attempt = m.attempt
WHERE c.queue = %(queue)s AND c.token = ANY (%(tokens)b::uuid[])
ORDER BY m.id
