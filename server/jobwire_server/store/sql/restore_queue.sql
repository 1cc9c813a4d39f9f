-- Puts a queue's row back as it was, unless there is one again.
INSERT INTO jobwire.queue SELECT * FROM jsonb_populate_record(NULL::jobwire.queue, %(row)s::jsonb) ON CONFLICT (name) DO NOTHING
