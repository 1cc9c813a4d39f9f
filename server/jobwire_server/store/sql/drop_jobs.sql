-- Removes live jobs of one queue for good, whose tickets have been taken.
WITH gone AS (
    DELETE FROM jobwire.live_job j WHERE j.queue = %(queue)s AND j.id = ANY (%(ids)b::uuid[]) RETURNING j.queue, j.id, j.gated
)
INSERT INTO jobwire.gate_event (queue, id, kind) SELECT queue, id, 2 FROM gone WHERE gated
