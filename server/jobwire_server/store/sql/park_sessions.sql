-- Marks all sessions of a draining replica, so that nobody ends them before the drain grace has passed.
UPDATE jobwire.session SET renewals = renewals + 1, grace_ms = %(grace_ms)s, detached_at = coalesce(detached_at, clock_timestamp()) WHERE owner = %(replica)s
