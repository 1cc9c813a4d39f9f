-- Carries live jobs, whose tickets have been taken, to another queue, where they stand by when they were stored. An id that the other queue has got meanwhile breaks its primary key.
WITH moved AS (
    UPDATE jobwire.live_job j SET queue = %(destination)s WHERE j.queue = %(queue)s AND j.id = ANY (%(ids)b::uuid[]) RETURNING j.id, j.gated
)
INSERT INTO jobwire.gate_event (queue, id, kind) SELECT %(queue)s, id, 2 FROM moved WHERE gated
