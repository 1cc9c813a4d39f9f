-- Removes a queue's row; returns it whole.
DELETE FROM jobwire.queue q WHERE q.name = %(queue)s RETURNING to_jsonb(q) AS row
