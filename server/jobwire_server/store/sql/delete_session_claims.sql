-- Removes all claims of a session, whose leases have been ended before.
DELETE FROM jobwire.claim WHERE session_id = %(id)s
