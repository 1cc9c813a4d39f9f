-- Pauses a schedule, which has no due time until it is resumed.
UPDATE jobwire.schedule SET paused = true, next_run_at = NULL, look_at = NULL, revision = revision + 1, updated_at = clock_timestamp()
WHERE name = %(name)s AND NOT paused
