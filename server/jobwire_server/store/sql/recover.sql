-- Gives back every job that is neither ready nor scheduled, after all sessions and claims have been removed; returns how many per queue.
WITH back AS (
    UPDATE jobwire.live_job j SET attempt = j.attempt + 1, expires_at = NULL, stop_reason = NULL, stop_at = NULL, waits_since = clock_timestamp()
    WHERE NOT EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq)
        AND NOT EXISTS (SELECT FROM jobwire.scheduled s WHERE s.queue = j.queue AND s.seq = j.seq)
        AND NOT EXISTS (SELECT FROM jobwire.blocked b WHERE b.queue = j.queue AND b.id = j.id)
        AND NOT EXISTS (SELECT FROM jobwire.gate_event e WHERE e.queue = j.queue AND e.id = j.id AND e.kind = 1)
    RETURNING j.queue, j.rank, j.seq, j.id, j.gated, j.loss_count >= %(suspect)s AS suspect
), tickets AS (
    INSERT INTO jobwire.ready (queue, rank, seq, id, suspect) SELECT queue, rank, seq, id, suspect FROM back WHERE gated IS NOT TRUE
), to_gates AS (
    INSERT INTO jobwire.gate_event (queue, id, kind, suspect) SELECT queue, id, 1, suspect FROM back WHERE gated
)
SELECT queue, count(*)::int AS jobs FROM back GROUP BY queue ORDER BY queue
