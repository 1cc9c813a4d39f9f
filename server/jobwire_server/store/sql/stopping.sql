-- The deliveries of this replica's sessions that are to stop: what signals may have failed to tell.
SELECT j.queue, j.id, j.stop_reason, c.token, m.place, c.session_id, greatest(0, extract(epoch FROM j.stop_at - clock_timestamp()) * 1000)::bigint AS grace_ms
FROM jobwire.live_job j
JOIN jobwire.claim c ON c.queue = j.queue AND j.id = ANY (c.ids)
CROSS JOIN LATERAL unnest(c.ids, c.attempts) WITH ORDINALITY AS m (id, attempt, place)
JOIN jobwire.session s ON s.id = c.session_id AND s.owner = %(replica)s
WHERE j.stop_reason IS NOT NULL AND m.id = j.id AND m.attempt = j.attempt
