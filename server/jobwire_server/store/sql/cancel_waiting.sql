-- Cancels those of the jobs of one queue that wait. Whoever takes a job's ticket away decides on it: a claim that was faster leaves it active, and it is not returned.
WITH wanted AS MATERIALIZED (
    SELECT j.queue, j.id, j.rank, j.seq FROM jobwire.live_job j WHERE j.queue = %(queue)s AND j.id = ANY (%(ids)b::uuid[])
), from_ready AS (
    DELETE FROM jobwire.ready r USING wanted w WHERE r.queue = w.queue AND r.rank = w.rank AND r.seq = w.seq RETURNING r.queue, r.id
), from_scheduled AS (
    DELETE FROM jobwire.scheduled s USING wanted w WHERE s.queue = w.queue AND s.seq = w.seq RETURNING s.queue, s.id
), gone AS (
    DELETE FROM jobwire.live_job j USING (SELECT queue, id FROM from_ready UNION ALL SELECT queue, id FROM from_scheduled) t WHERE j.queue = t.queue AND j.id = t.id
    RETURNING j.*
)
INSERT INTO jobwire.archive (queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
    created_at, start_after, started_at, finished_at, drop_on, state, token, worker, progress, progress_count, errors, headers, data, output)
SELECT queue, id, seq, rank, attempt - 1, retry_count, loss_count, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
    created_at, start_after, started_at, clock_timestamp(), jobwire.drop_day(retention_ms), 5, NULL, worker, progress, progress_count, errors, headers, data, NULL
FROM gone
RETURNING id
