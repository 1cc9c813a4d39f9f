-- Removes finished jobs of one queue for good. One that failed holds up its key no longer, where the order of keys is strict.
WITH gone AS (
    DELETE FROM jobwire.archive a WHERE a.queue = %(queue)s AND a.id = ANY (%(ids)b::uuid[]) RETURNING a.queue, a.id, a.state
), left_gates AS (
    INSERT INTO jobwire.gate_event (queue, id, kind)
    SELECT g.queue, g.id, 2 FROM gone g WHERE g.state = 6 AND EXISTS (SELECT FROM jobwire.slot s WHERE s.queue = g.queue AND s.id = g.id)
)
SELECT id FROM gone
