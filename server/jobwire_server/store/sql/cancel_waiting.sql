-- Cancels those of the jobs of one queue that wait. Whoever takes a job's ticket away decides on it: a claim that was faster leaves it active, and it is not returned.
WITH wanted AS MATERIALIZED (
    SELECT j.queue, j.id, j.rank, j.seq FROM jobwire.live_job j WHERE j.queue = %(queue)s AND j.id = ANY (%(ids)b::uuid[])
), from_ready AS (
    DELETE FROM jobwire.ready r USING wanted w WHERE r.queue = w.queue AND r.rank = w.rank AND r.seq = w.seq RETURNING r.queue, r.id
), from_scheduled AS (
    DELETE FROM jobwire.scheduled s USING wanted w WHERE s.queue = w.queue AND s.seq = w.seq RETURNING s.queue, s.id
), from_blocked AS (
    DELETE FROM jobwire.blocked b USING wanted w WHERE b.queue = w.queue AND b.id = w.id RETURNING b.queue, b.id
), from_events AS (
    DELETE FROM jobwire.gate_event e USING wanted w WHERE e.queue = w.queue AND e.id = w.id AND e.kind = 1 RETURNING e.queue, e.id
), gone AS (
    DELETE FROM jobwire.live_job j USING (SELECT queue, id FROM from_ready UNION ALL SELECT queue, id FROM from_scheduled
        UNION ALL SELECT queue, id FROM from_blocked UNION ALL SELECT queue, id FROM from_events) t WHERE j.queue = t.queue AND j.id = t.id
    RETURNING j.*
), left_gates AS (
    INSERT INTO jobwire.gate_event (queue, id, kind) SELECT queue, id, 2 FROM gone WHERE gated
)
INSERT INTO jobwire.archive (queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
    created_at, start_after, started_at, finished_at, drop_on, state, token, worker, progress, progress_count, errors, headers, data, output, key, group_id, tier, dead_letter, origin, checkpoint)
SELECT queue, id, seq, rank, attempt - 1, retry_count, loss_count, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
    created_at, start_after, started_at, clock_timestamp(), jobwire.drop_day(retention_ms), 5, NULL, worker, progress, progress_count, errors, headers, data, NULL, key, group_id, tier, dead_letter, origin, checkpoint
FROM gone
RETURNING id
