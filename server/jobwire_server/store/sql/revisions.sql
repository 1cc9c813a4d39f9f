-- What waiting GetJob calls compare: state, attempt and progress of several jobs at once, each looked up by its key.
SELECT k.queue, k.id, r.state, r.attempt, r.progress_count
FROM unnest(%(queues)b::text[], %(ids)b::uuid[]) AS k (queue, id)
CROSS JOIN LATERAL (
    SELECT j.state, j.attempt, j.progress_count FROM jobwire.job_record j WHERE j.queue = k.queue AND j.id = k.id
    ORDER BY j.finished_at DESC NULLS FIRST LIMIT 1
) r
