-- A page of schedules by name, of all queues or of one.
SELECT id, name, queue, cron, time_zone, every_ms, anchor, once_at, missed, missed_limit, tolerance_ms, data, job, paused, next_run_at, revision, runs, last_due_at, last_run_at,
    last_job_id, last_error, last_error_at, created_at, updated_at
FROM jobwire.schedule WHERE (%(after)s::text IS NULL OR name > %(after)s) AND (%(queue)s::text IS NULL OR queue = %(queue)s) ORDER BY name LIMIT %(limit)s
