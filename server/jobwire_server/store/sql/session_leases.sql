-- The valid leases of a session.
SELECT c.queue, m.id, c.token, m.place, j.loss_count > 0 AS suspect
FROM jobwire.claim c
CROSS JOIN LATERAL unnest(c.ids, c.attempts) WITH ORDINALITY AS m (id, attempt, place)
JOIN jobwire.live_job j ON j.queue = c.queue AND j.id = m.id AND j.attempt = m.attempt
WHERE c.session_id = %(id)s
ORDER BY c.queue, m.id
