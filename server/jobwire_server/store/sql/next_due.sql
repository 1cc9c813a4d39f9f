-- How long until the next scheduled job, in milliseconds; null if there is none (`greatest` alone would make 0 of it).
SELECT CASE WHEN first IS NOT NULL THEN (greatest(0, extract(epoch FROM first - clock_timestamp())) * 1000)::bigint END AS in_ms
FROM (SELECT min(start_after) AS first FROM jobwire.scheduled) s
