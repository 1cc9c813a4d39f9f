-- Turns the tickets of jobs whose time has come into tickets that may be claimed; returns the queues concerned and how many tickets were turned.
WITH due AS (
    DELETE FROM jobwire.scheduled s WHERE s.ctid = ANY (ARRAY(
        SELECT d.ctid FROM jobwire.scheduled d WHERE d.start_after <= clock_timestamp() ORDER BY d.start_after LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
    RETURNING s.queue, s.rank, s.seq, s.id, s.suspect
), turned AS (
    INSERT INTO jobwire.ready (queue, rank, seq, id, suspect) SELECT queue, rank, seq, id, suspect FROM due ORDER BY queue, rank, seq
    ON CONFLICT DO NOTHING
)
SELECT queue, count(*)::int AS jobs FROM due GROUP BY queue
