-- One job, live or finished, in one snapshot. The newest of several is returned.
SELECT queue, id, state, data, headers, rank, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, attempt, retry_count, loss_count,
    release_count, progress, progress_count, output, errors, created_at, start_after, started_at, finished_at, worker, session_id, stopping,
    key, group_id, tier, dead_letter, origin, checkpoint, waits_at
FROM jobwire.job_record WHERE id = %(id)s AND queue = ANY (%(queues)b::text[]) ORDER BY finished_at DESC NULLS FIRST, created_at DESC LIMIT 1
