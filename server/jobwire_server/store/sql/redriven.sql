-- Gives redriven jobs, just stored in a queue, the origin of the dead letters they were made of.
UPDATE jobwire.live_job j SET origin = i.origin
FROM jsonb_to_recordset(%(origins)s::jsonb) AS i (id uuid, origin jsonb)
WHERE j.queue = %(queue)s AND j.id = i.id
