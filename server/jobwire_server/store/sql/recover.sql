-- Gives back every job that is neither ready nor scheduled, after all sessions and claims have been removed; returns how many per queue.
WITH back AS (
    UPDATE jobwire.live_job j SET attempt = j.attempt + 1, expires_at = NULL, stop_reason = NULL, stop_at = NULL
    WHERE NOT EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq)
        AND NOT EXISTS (SELECT FROM jobwire.scheduled s WHERE s.queue = j.queue AND s.seq = j.seq)
    RETURNING j.queue, j.rank, j.seq, j.id, j.loss_count >= %(suspect)s AS suspect
), tickets AS (
    INSERT INTO jobwire.ready (queue, rank, seq, id, suspect) SELECT * FROM back
)
SELECT queue, count(*)::int AS jobs FROM back GROUP BY queue ORDER BY queue
