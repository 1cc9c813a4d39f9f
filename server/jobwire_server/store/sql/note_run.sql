-- Notes that somebody had a schedule run beside its due times.
UPDATE jobwire.schedule SET runs = runs + 1, last_run_at = clock_timestamp(), last_job_id = %(job_id)s WHERE id = %(id)s
