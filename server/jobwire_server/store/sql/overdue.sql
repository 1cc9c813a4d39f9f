-- Cancels those of the next jobs of a queue, by ascending id, that have waited longer than it allows; returns their ids and the id up to which it looked (null: to the end). A row without an id
-- tells only that. Row locks in the order of the ids; what somebody else holds is left for the next time. Whoever takes a job's ticket away decides on it.
WITH looked AS MATERIALIZED (
    SELECT j.id FROM jobwire.live_job j WHERE j.queue = %(queue)s AND j.id > %(after)s ORDER BY j.id LIMIT %(window)s
), wanted AS MATERIALIZED (
    SELECT j.* FROM looked l CROSS JOIN LATERAL (
        SELECT k.* FROM jobwire.live_job k WHERE k.queue = %(queue)s AND k.id = l.id
            AND coalesce(k.waits_since, k.start_after) < clock_timestamp() - (SELECT q.waiting_ms FROM jobwire.queue q WHERE q.name = %(queue)s) * interval '1 millisecond'
        FOR UPDATE SKIP LOCKED
    ) j
), from_ready AS (
    DELETE FROM jobwire.ready r USING wanted w WHERE r.queue = w.queue AND r.rank = w.rank AND r.seq = w.seq RETURNING r.queue, r.id
), from_scheduled AS (
    DELETE FROM jobwire.scheduled s USING wanted w WHERE s.queue = w.queue AND s.seq = w.seq RETURNING s.queue, s.id
), from_blocked AS (
    DELETE FROM jobwire.blocked b USING wanted w WHERE b.queue = w.queue AND b.id = w.id RETURNING b.queue, b.id
), from_events AS (
    DELETE FROM jobwire.gate_event e USING wanted w WHERE e.queue = w.queue AND e.id = w.id AND e.kind = 1 RETURNING e.queue, e.id
), gone AS (
    DELETE FROM jobwire.live_job j USING (SELECT queue, id FROM from_ready UNION SELECT queue, id FROM from_scheduled
        UNION SELECT queue, id FROM from_blocked UNION SELECT queue, id FROM from_events) t WHERE j.queue = t.queue AND j.id = t.id
    RETURNING j.*
), left_gates AS (
    INSERT INTO jobwire.gate_event (queue, id, kind) SELECT queue, id, 2 FROM gone WHERE gated
), archived AS (
    INSERT INTO jobwire.archive (queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
        created_at, start_after, started_at, finished_at, drop_on, state, token, worker, progress, progress_count, errors, headers, data, output, key, group_id, tier, dead_letter, origin, checkpoint)
    SELECT queue, id, seq, rank, attempt - 1, retry_count, loss_count, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
        created_at, start_after, started_at, clock_timestamp(), jobwire.drop_day(retention_ms), 5, NULL, worker, progress, progress_count,
        jsonb_path_query_array(coalesce(errors, '[]') || jsonb_build_array(jsonb_build_object('attempt', attempt - 1, 'time', clock_timestamp(), 'worker', '',
            'type', 'WAITED_TOO_LONG', 'message', 'it waited longer than its queue allows', 'trace', '')), '$[last - 9 to last]'),
        headers, data, NULL, key, group_id, tier, dead_letter, origin, checkpoint
    FROM gone
    RETURNING id
), place AS (
    SELECT CASE WHEN (SELECT count(*) FROM looked) = %(window)s THEN (SELECT l.id FROM looked l ORDER BY l.id DESC LIMIT 1) END AS upto
)
SELECT p.upto, a.id FROM place p LEFT JOIN archived a ON true
