-- The valid leases of a session.
SELECT c.queue, m.id, c.token, m.place, j.loss_count >= %(suspect)s AS suspect
FROM jobwire.claim c
CROSS JOIN LATERAL unnest(c.ids, c.attempts) WITH ORDINALITY AS m (id, attempt, place)
CROSS JOIN LATERAL (SELECT k.* FROM jobwire.live_job k WHERE k.queue = c.queue AND k.id = m.id AND k.attempt = m.attempt OFFSET 0) j
WHERE c.session_id = %(id)s
ORDER BY c.queue, m.id
