-- How long until the next scheduled job, in milliseconds; null if there is none.
SELECT (greatest(0, extract(epoch FROM min(start_after) - clock_timestamp())) * 1000)::bigint AS in_ms FROM jobwire.scheduled
