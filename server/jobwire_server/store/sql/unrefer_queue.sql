-- Whatever refers to a queue that is to be deleted by force refers to it no more: queues have no dead letters then, and schedules are paused.
WITH paused AS (
    UPDATE jobwire.schedule s SET paused = true, next_run_at = NULL, look_at = NULL, revision = revision + 1, updated_at = clock_timestamp() WHERE s.queue = %(queue)s AND NOT s.paused
)
UPDATE jobwire.queue q SET dead_letter = NULL, updated_at = clock_timestamp() WHERE q.dead_letter = %(queue)s
