-- A schedule by its name, which until the end of the transaction nobody else changes, and whose due times wait.
SELECT id, name, queue, cron, time_zone, every_ms, anchor, once_at, missed, missed_limit, tolerance_ms, data, job, paused, next_run_at, revision, runs, last_due_at, last_run_at,
    last_job_id, last_error, last_error_at, created_at, updated_at
FROM jobwire.schedule WHERE name = %(name)s FOR UPDATE
