-- Queues by name.
SELECT name, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, max_data_bytes, max_depth, created_at, updated_at FROM jobwire.queue WHERE name = ANY (%(names)b::text[])
