-- The valid leases of some jobs of one queue, and who serves them.
SELECT m.id, c.token, m.place, c.session_id, s.owner
FROM jobwire.claim c
CROSS JOIN LATERAL unnest(c.ids, c.attempts) WITH ORDINALITY AS m (id, attempt, place)
CROSS JOIN LATERAL (SELECT k.* FROM jobwire.live_job k WHERE k.queue = c.queue AND k.id = m.id AND k.attempt = m.attempt OFFSET 0) j
LEFT JOIN jobwire.session s ON s.id = c.session_id
WHERE c.queue = %(queue)s AND c.ids && %(ids)b::uuid[] AND m.id = ANY (%(ids)b::uuid[])
ORDER BY m.id
