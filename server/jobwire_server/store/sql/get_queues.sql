-- Queues by name.
SELECT * FROM jobwire.queue WHERE name = ANY (%(names)b::text[])
