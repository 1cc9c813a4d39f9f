-- The sessions that this replica does not serve, for the watch over their counters: those of others, and those of its own that it knows nothing of,
-- because the answer to their opening was lost.
SELECT id, owner, epoch, renewals, grace_ms FROM jobwire.session WHERE owner <> %(replica)s OR id <> ALL (%(known)b::uuid[])
