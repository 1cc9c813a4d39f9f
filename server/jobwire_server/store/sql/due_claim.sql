-- One claim that may hold a delivery whose time limit or stop grace is over, locked so that one replica looks at it.
SELECT queue, token FROM jobwire.claim WHERE check_at <= clock_timestamp() ORDER BY check_at LIMIT 1 FOR UPDATE SKIP LOCKED
