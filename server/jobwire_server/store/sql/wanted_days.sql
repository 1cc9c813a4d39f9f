-- The days on which jobs of the queues' own retention that finish from today to the day after tomorrow may be dropped, and today.
SELECT DISTINCT jobwire.drop_day(retention_ms) + ahead AS day, (clock_timestamp() AT TIME ZONE 'UTC')::date AS today
FROM (SELECT retention_ms FROM jobwire.queue UNION SELECT %(default_ms)s::bigint) r CROSS JOIN generate_series(0, 2) AS ahead
