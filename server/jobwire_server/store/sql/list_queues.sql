-- A page of queues.
SELECT name, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, max_data_bytes, max_depth, created_at, updated_at FROM jobwire.queue WHERE %(after)s::text IS NULL OR name > %(after)s ORDER BY name LIMIT %(limit)s
