-- Resumes a schedule with the next due time given.
UPDATE jobwire.schedule SET paused = false, next_run_at = %(next)s::timestamptz, look_at = %(next)s::timestamptz, revision = revision + 1, updated_at = clock_timestamp()
WHERE id = %(id)s AND paused
