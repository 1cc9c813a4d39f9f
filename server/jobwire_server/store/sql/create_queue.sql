-- Makes sure that a queue exists; returns it if this call created it.
INSERT INTO jobwire.queue (name, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, max_data_bytes, max_depth)
VALUES (%(name)s, %(retry_limit)s, %(retry_delay_ms)s, %(retry_backoff)s, %(retry_delay_max_ms)s, %(expire_ms)s, %(retention_ms)s, %(max_data_bytes)s, %(max_depth)s)
ON CONFLICT (name) DO NOTHING
RETURNING name
