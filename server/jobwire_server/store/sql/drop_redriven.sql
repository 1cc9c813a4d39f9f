-- Removes dead letters that were redriven, those that waited and those that had finished.
WITH gone AS (
    DELETE FROM jobwire.live_job j WHERE j.queue = %(queue)s AND j.id = ANY (%(waiting)b::uuid[]) RETURNING j.queue, j.id, j.gated
), left_gates AS (
    INSERT INTO jobwire.gate_event (queue, id, kind) SELECT queue, id, 2 FROM gone WHERE gated
)
DELETE FROM jobwire.archive a WHERE a.queue = %(queue)s AND a.id = ANY (%(finished)b::uuid[]) AND a.origin IS NOT NULL
