-- A page of one queue's jobs in some states, by descending id.
SELECT queue, id, state, data, headers, rank, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, attempt, retry_count, loss_count,
    release_count, progress, progress_count, output, errors, created_at, start_after, started_at, finished_at, worker, session_id, stopping,
    key, group_id, tier, dead_letter, origin, checkpoint, waits_at
FROM jobwire.job_record
WHERE queue = %(queue)s AND state = ANY (%(states)b::int4[]) AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
ORDER BY id DESC LIMIT %(limit)s
