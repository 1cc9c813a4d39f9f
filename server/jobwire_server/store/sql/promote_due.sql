-- Turns the tickets of jobs whose time has come into tickets that may be claimed; returns the queues concerned and how many tickets were turned.
WITH due AS (
    DELETE FROM jobwire.scheduled s WHERE s.ctid = ANY (ARRAY(
        SELECT d.ctid FROM jobwire.scheduled d WHERE d.start_after <= clock_timestamp() ORDER BY d.start_after LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
    RETURNING s.queue, s.rank, s.seq, s.id, s.suspect, s.gated
), turned AS (
    INSERT INTO jobwire.ready (queue, rank, seq, id, suspect) SELECT queue, rank, seq, id, suspect FROM due WHERE NOT gated ORDER BY queue, rank, seq
    ON CONFLICT DO NOTHING
), to_gates AS (
    INSERT INTO jobwire.gate_event (queue, id, kind, suspect) SELECT queue, id, 1, suspect FROM due WHERE gated
)
SELECT queue, count(*)::int AS jobs, bool_or(gated) AS gated FROM due GROUP BY queue
