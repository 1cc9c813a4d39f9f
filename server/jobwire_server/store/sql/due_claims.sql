-- Claims that may hold a delivery whose time limit or stop grace is over, locked so that one replica looks at each.
SELECT queue, token FROM jobwire.claim WHERE check_at <= clock_timestamp() ORDER BY check_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
