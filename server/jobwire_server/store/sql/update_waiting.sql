-- Changes what is given (not null) of live jobs of one queue, whose tickets have been taken; returns when they may begin.
UPDATE jobwire.live_job j SET data = coalesce(%(data)s, data), rank = coalesce(%(rank)s::int4, rank),
    start_after = coalesce(%(start_at)s::timestamptz, statement_timestamp() + %(start_in_ms)s::int8 * interval '1 millisecond', start_after),
    retry_limit = coalesce(%(retry_limit)s::int4, retry_limit), retry_delay_ms = coalesce(%(retry_delay_ms)s::int8, retry_delay_ms),
    retry_backoff = coalesce(%(retry_backoff)s::bool, retry_backoff), retry_delay_max_ms = coalesce(%(retry_delay_max_ms)s::int8, retry_delay_max_ms),
    expire_ms = coalesce(%(expire_ms)s::int8, expire_ms), retention_ms = coalesce(%(retention_ms)s::int8, retention_ms),
    dead_letter = coalesce(%(dead_letter)s, dead_letter)
WHERE j.queue = %(queue)s AND j.id = ANY (%(ids)b::uuid[])
RETURNING j.id, j.start_after
