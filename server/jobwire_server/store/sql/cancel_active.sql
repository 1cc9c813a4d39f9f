-- Tells the running ones of the jobs of one queue to stop. A job that expired just before is told again, since its outcome changes. Row locks in the order of the ids.
WITH lease AS MATERIALIZED (
    SELECT c.queue, m.id, m.attempt, m.place, c.token, c.session_id
    FROM jobwire.claim c CROSS JOIN LATERAL unnest(c.ids, c.attempts) WITH ORDINALITY AS m (id, attempt, place)
    WHERE c.queue = %(queue)s AND c.ids && %(ids)b::uuid[] AND m.id = ANY (%(ids)b::uuid[])
    ORDER BY m.id
), told AS (
    UPDATE jobwire.live_job j SET stop_reason = 1, stop_at = coalesce(j.stop_at, clock_timestamp() + %(cancel_grace_ms)s * interval '1 millisecond')
    FROM lease l WHERE j.queue = l.queue AND j.id = l.id AND j.attempt = l.attempt
    RETURNING j.queue, j.id, j.stop_at, l.token, l.place, l.session_id
), sooner AS (
    UPDATE jobwire.claim c SET check_at = t.stop_at FROM (SELECT queue, token, min(stop_at) AS stop_at FROM told GROUP BY queue, token) t
    WHERE c.queue = t.queue AND c.token = t.token AND c.check_at > t.stop_at
)
SELECT t.id, t.token, t.place, t.session_id, s.owner FROM told t LEFT JOIN jobwire.session s ON s.id = t.session_id
