-- Jobs of one queue by their ids, as they stand, in the order given; the newest of several of an id, live ones first.
SELECT r.queue, r.id, r.state, r.data, r.headers, r.rank, r.retry_limit, r.retry_delay_ms, r.retry_backoff, r.retry_delay_max_ms, r.expire_ms, r.retention_ms, r.attempt, r.retry_count, r.loss_count,
    r.release_count, r.progress, r.progress_count, r.output, r.errors, r.created_at, r.start_after, r.started_at, r.finished_at, r.worker, r.session_id, r.stopping,
    r.key, r.group_id, r.tier, r.dead_letter, r.origin, r.checkpoint, r.waits_at
FROM unnest(%(ids)b::uuid[]) WITH ORDINALITY AS k (id, n)
CROSS JOIN LATERAL (
    SELECT j.* FROM jobwire.job_record j WHERE j.queue = %(queue)s AND j.id = k.id ORDER BY j.finished_at DESC NULLS FIRST LIMIT 1
) r
ORDER BY k.n
