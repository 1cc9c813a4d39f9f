-- The next dead letters that have finished in a queue and match; otherwise as `redrive_waiting`. Those that failed there and went on to another queue are told by `went_to`.
WITH looked AS MATERIALIZED (
    SELECT a.id FROM jobwire.archive a WHERE a.queue = %(queue)s AND (%(after)s::uuid IS NULL OR a.id > %(after)s::uuid) ORDER BY a.id LIMIT %(window)s
), wanted AS MATERIALIZED (
    SELECT j.* FROM (SELECT DISTINCT id FROM looked ORDER BY id) l CROSS JOIN LATERAL (
        SELECT k.* FROM jobwire.archive k WHERE k.queue = %(queue)s AND k.id = l.id AND k.finished_at <= %(before)s::timestamptz AND k.origin IS NOT NULL
            AND (%(origin_queue)s::text IS NULL OR k.origin ->> 'queue' = %(origin_queue)s)
            AND (%(error_type)s::text IS NULL OR k.origin #>> '{error,type}' = %(error_type)s)
            AND (%(failed_after)s::timestamptz IS NULL OR (k.origin ->> 'failed')::timestamptz >= %(failed_after)s)
            AND (%(failed_before)s::timestamptz IS NULL OR (k.origin ->> 'failed')::timestamptz < %(failed_before)s)
        ORDER BY k.finished_at DESC LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) j
    LIMIT %(limit)s
), place AS (
    SELECT CASE WHEN (SELECT count(*) FROM wanted) = %(limit)s THEN (SELECT w.id FROM wanted w ORDER BY w.id DESC LIMIT 1)
        WHEN (SELECT count(*) FROM looked) = %(window)s THEN (SELECT l.id FROM looked l ORDER BY l.id DESC LIMIT 1) END AS upto
)
SELECT p.upto, w.id, w.rank, w.headers, w.data, w.key, w.group_id, w.tier, w.origin, CASE WHEN w.state = 6 THEN nullif(w.dead_letter, '') END AS went_to
FROM place p LEFT JOIN wanted w ON true ORDER BY w.id
