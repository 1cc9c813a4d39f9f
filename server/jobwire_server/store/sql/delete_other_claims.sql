-- Removes the claims of a session that hold none of the deliveries that go on.
DELETE FROM jobwire.claim WHERE session_id = %(id)s AND token <> ALL (%(tokens)b::uuid[])
