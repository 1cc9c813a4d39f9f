-- Puts a queue's row back as it was, unless there is one again.
SELECT jobwire.restore_queue(%(row)s::jsonb)
