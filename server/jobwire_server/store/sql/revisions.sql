-- What waiting GetJob calls compare: state, attempt and progress of several jobs at once.
SELECT DISTINCT ON (queue, id) queue, id, state, attempt, progress_count FROM jobwire.job_record
WHERE (queue, id) IN (SELECT * FROM unnest(%(queues)b::text[], %(ids)b::uuid[])) ORDER BY queue, id, finished_at DESC NULLS FIRST
