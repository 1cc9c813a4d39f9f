-- Has the gates see that these failed jobs hold up their keys no longer.
WITH freed AS (
    UPDATE jobwire.slot s SET failed = false WHERE s.queue = %(queue)s AND s.id = ANY (%(ids)b::uuid[]) AND s.failed RETURNING s.queue, s.id
)
INSERT INTO jobwire.gate_event (queue, id, kind) SELECT queue, id, 2 FROM freed
