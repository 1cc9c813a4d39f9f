-- Locks the sessions of a claim as the claim itself does, before the queue's row: whoever ends a session may wait for that row.
SELECT id FROM jobwire.session WHERE id = ANY (%(sessions)b::uuid[]) ORDER BY id FOR SHARE
