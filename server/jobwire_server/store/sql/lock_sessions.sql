-- Locks sessions for a moment, in the order of their ids: fails if somebody holds one of them.
SELECT id FROM jobwire.session WHERE id = ANY (%(ids)b::uuid[]) ORDER BY id FOR UPDATE
