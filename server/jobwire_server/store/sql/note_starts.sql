-- Counts the starts of jobs just claimed, where rates need it.
SELECT jobwire.note_starts(%(queue)s, %(ids)b::uuid[])
