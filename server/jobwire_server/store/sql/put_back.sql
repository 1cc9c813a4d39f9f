-- Puts the tickets of jobs back that were taken in this transaction.
WITH input AS MATERIALIZED (
    SELECT j.queue, j.id, j.rank, j.seq, j.gated, i.suspect, i.due
    FROM jsonb_to_recordset(%(tickets)s::jsonb) AS i (id uuid, suspect bool, due timestamptz)
    CROSS JOIN LATERAL (SELECT k.* FROM jobwire.live_job k WHERE k.queue = %(queue)s AND k.id = i.id OFFSET 0) j
), later AS (
    INSERT INTO jobwire.scheduled (queue, rank, seq, id, suspect, start_after, gated)
    SELECT queue, rank, seq, id, suspect, due, coalesce(gated, false) FROM input WHERE due IS NOT NULL
), to_gates AS (
    INSERT INTO jobwire.gate_event (queue, id, kind, suspect) SELECT queue, id, 1, suspect FROM input WHERE due IS NULL AND gated ORDER BY rank, seq
)
INSERT INTO jobwire.ready (queue, rank, seq, id, suspect) SELECT queue, rank, seq, id, suspect FROM input WHERE due IS NULL AND gated IS NOT TRUE
