-- A page of queues.
SELECT * FROM jobwire.queue WHERE %(after)s::text IS NULL OR name > %(after)s ORDER BY name LIMIT %(limit)s
