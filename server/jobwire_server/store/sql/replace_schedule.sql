-- Puts what is given in the place of what a schedule was. One that is paused stays so.
UPDATE jobwire.schedule SET queue = %(queue)s, cron = %(cron)s, time_zone = %(time_zone)s, every_ms = %(every_ms)s, anchor = %(anchor)s, once_at = %(once_at)s,
    missed = %(missed)s, missed_limit = %(missed_limit)s, tolerance_ms = %(tolerance_ms)s, data = %(data)s, job = %(job)s,
    next_run_at = CASE WHEN NOT paused THEN %(next)s::timestamptz END, look_at = CASE WHEN NOT paused THEN %(next)s::timestamptz END,
    revision = revision + 1, updated_at = clock_timestamp()
WHERE name = %(name)s
