-- The valid leases of some claims of one queue.
SELECT m.id, c.token, m.place
FROM jobwire.claim c
CROSS JOIN LATERAL unnest(c.ids, c.attempts) WITH ORDINALITY AS m (id, attempt, place)
CROSS JOIN LATERAL (SELECT k.* FROM jobwire.live_job k WHERE k.queue = c.queue AND k.id = m.id AND k.attempt = m.attempt OFFSET 0) j
WHERE c.queue = %(queue)s AND c.token = ANY (%(tokens)b::uuid[])
ORDER BY m.id
