-- The sessions that other replicas own, for the watch over their counters.
SELECT id, epoch, renewals, grace_ms FROM jobwire.session WHERE owner <> %(replica)s
