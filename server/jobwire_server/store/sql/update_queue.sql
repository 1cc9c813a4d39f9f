-- Changes what is given (not null) of a queue's settings.
UPDATE jobwire.queue SET retry_limit = coalesce(%(retry_limit)s, retry_limit), retry_delay_ms = coalesce(%(retry_delay_ms)s, retry_delay_ms),
    retry_backoff = coalesce(%(retry_backoff)s, retry_backoff), retry_delay_max_ms = coalesce(%(retry_delay_max_ms)s, retry_delay_max_ms),
    expire_ms = coalesce(%(expire_ms)s, expire_ms), retention_ms = coalesce(%(retention_ms)s, retention_ms), max_data_bytes = coalesce(%(max_data_bytes)s, max_data_bytes),
    max_depth = coalesce(%(max_depth)s, max_depth),
    dead_letter = CASE WHEN %(dead_letter)s::text IS NULL THEN dead_letter ELSE nullif(%(dead_letter)s, '') END,
    waiting_ms = CASE WHEN %(waiting_ms)s::int8 IS NULL THEN waiting_ms ELSE nullif(%(waiting_ms)s::int8, 0) END,
    updated_at = clock_timestamp()
WHERE name = %(name)s
RETURNING name
