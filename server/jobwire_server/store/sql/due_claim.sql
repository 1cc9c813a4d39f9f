-- One claim that may hold a delivery whose time limit or stop grace is over, but for those that could not be looked at just now. It is not locked: live
-- rows come first in the order of locks, and two replicas that look at one claim find each job changed by the other.
SELECT queue, token FROM jobwire.claim WHERE check_at <= clock_timestamp() AND token <> ALL (%(skip)b::uuid[]) ORDER BY check_at LIMIT 1
