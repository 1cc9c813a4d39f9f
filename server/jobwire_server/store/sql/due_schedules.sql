-- The schedules that are to be looked at now, with the time by which that is so.
SELECT t.now, id, name, queue, cron, time_zone, every_ms, anchor, once_at, missed, missed_limit, tolerance_ms, data, job, paused, next_run_at, revision, runs, last_due_at, last_run_at,
    last_job_id, last_error, last_error_at, created_at, updated_at
FROM (SELECT clock_timestamp() AS now) t CROSS JOIN LATERAL (SELECT * FROM jobwire.schedule WHERE look_at <= t.now ORDER BY look_at LIMIT %(limit)s) s
