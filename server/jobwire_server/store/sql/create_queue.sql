-- Makes sure that a queue exists; returns it if this call created it.
INSERT INTO jobwire.queue (name, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, dead_letter, max_data_bytes, max_depth,
    policy, max_active, rate_starts, rate_ms, group_limit, group_tiers, group_rate_starts, group_rate_ms, fair, waiting_ms)
VALUES (%(name)s, %(retry_limit)s, %(retry_delay_ms)s, %(retry_backoff)s, %(retry_delay_max_ms)s, %(expire_ms)s, %(retention_ms)s, %(dead_letter)s, %(max_data_bytes)s, %(max_depth)s,
    %(policy)s, %(max_active)s, %(rate_starts)s, %(rate_ms)s, %(group_limit)s, %(group_tiers)s, %(group_rate_starts)s, %(group_rate_ms)s, %(fair)s, %(waiting_ms)s)
ON CONFLICT (name) DO NOTHING
RETURNING name
