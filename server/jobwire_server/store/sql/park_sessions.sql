-- Marks all sessions of a draining replica, so that nobody ends them before the drain grace has passed.
UPDATE jobwire.session SET renewals = renewals + 1, grace_ms = %(grace_ms)s WHERE owner = %(replica)s
