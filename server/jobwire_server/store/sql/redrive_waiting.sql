-- Takes the tickets of the next dead letters that wait in a queue and match, at most `limit`, looking at `window` jobs by ascending id; returns the jobs, with what their tickets were,
-- and, in each row, the id up to which it looked (null: to the end). A row without an id tells only that. Row locks in the order of the ids; what somebody else holds is left out.
WITH looked AS MATERIALIZED (
    SELECT j.id FROM jobwire.live_job j WHERE j.queue = %(queue)s AND (%(after)s::uuid IS NULL OR j.id > %(after)s::uuid) ORDER BY j.id LIMIT %(window)s
), wanted AS MATERIALIZED (
    SELECT j.* FROM looked l CROSS JOIN LATERAL (
        SELECT k.* FROM jobwire.live_job k WHERE k.queue = %(queue)s AND k.id = l.id AND k.created_at <= %(before)s::timestamptz
            AND (%(origin_queue)s::text IS NULL OR k.origin ->> 'queue' = %(origin_queue)s)
            AND (%(error_type)s::text IS NULL OR k.origin #>> '{error,type}' = %(error_type)s)
            AND (%(failed_after)s::timestamptz IS NULL OR (k.origin ->> 'failed')::timestamptz >= %(failed_after)s)
            AND (%(failed_before)s::timestamptz IS NULL OR (k.origin ->> 'failed')::timestamptz < %(failed_before)s)
        FOR UPDATE SKIP LOCKED
    ) j
    LIMIT %(limit)s
), from_ready AS (
    DELETE FROM jobwire.ready r USING wanted w WHERE r.queue = w.queue AND r.rank = w.rank AND r.seq = w.seq RETURNING r.id, r.suspect, NULL::timestamptz AS due
), from_scheduled AS (
    DELETE FROM jobwire.scheduled s USING wanted w WHERE s.queue = w.queue AND s.seq = w.seq RETURNING s.id, s.suspect, s.start_after AS due
), from_blocked AS (
    DELETE FROM jobwire.blocked b USING wanted w WHERE b.queue = w.queue AND b.id = w.id RETURNING b.id, b.suspect, NULL::timestamptz AS due
), from_events AS (
    DELETE FROM jobwire.gate_event e USING wanted w WHERE e.queue = w.queue AND e.id = w.id AND e.kind = 1 RETURNING e.id, e.suspect, NULL::timestamptz AS due
), waiting AS (
    SELECT id, bool_or(suspect) AS suspect, max(due) AS due FROM (
        SELECT * FROM from_ready UNION ALL SELECT * FROM from_scheduled UNION ALL SELECT * FROM from_blocked UNION ALL SELECT * FROM from_events) t GROUP BY id
), place AS (
    SELECT CASE WHEN (SELECT count(*) FROM wanted) = %(limit)s THEN (SELECT w.id FROM wanted w ORDER BY w.id DESC LIMIT 1)
        WHEN (SELECT count(*) FROM looked) = %(window)s THEN (SELECT l.id FROM looked l ORDER BY l.id DESC LIMIT 1) END AS upto
)
SELECT p.upto, w.id, w.rank, w.headers, w.data, w.key, w.group_id, w.tier, w.origin, t.suspect, t.due
FROM place p LEFT JOIN (waiting t JOIN wanted w ON w.id = t.id) ON true ORDER BY w.id
