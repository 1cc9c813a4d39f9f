-- Makes a schedule, and returns it; nothing if there is one of that name by now.
INSERT INTO jobwire.schedule (name, queue, cron, time_zone, every_ms, anchor, once_at, missed, missed_limit, tolerance_ms, data, job, next_run_at, look_at)
VALUES (%(name)s, %(queue)s, %(cron)s, %(time_zone)s, %(every_ms)s, %(anchor)s, %(once_at)s, %(missed)s, %(missed_limit)s, %(tolerance_ms)s, %(data)s, %(job)s,
    %(next)s, %(next)s)
ON CONFLICT (name) DO NOTHING
RETURNING id
