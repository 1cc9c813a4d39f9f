-- Gives tickets to live jobs of one queue that have none: where a job comes (back) to wait that no lease of its own brought there. With a time to come it waits for that (`dues`), else it
-- may be claimed. Returns which may.
WITH input AS MATERIALIZED (
    SELECT j.queue, j.rank, j.seq, j.id, j.loss_count >= %(suspect)s AS suspect, i.due
    FROM unnest(%(ids)b::uuid[], %(dues)b::timestamptz[]) AS i (id, due)
    CROSS JOIN LATERAL (SELECT k.* FROM jobwire.live_job k WHERE k.queue = %(queue)s AND k.id = i.id OFFSET 0) j
), now_ready AS (
    INSERT INTO jobwire.ready (queue, rank, seq, id, suspect)
    SELECT queue, rank, seq, id, suspect FROM input WHERE due IS NULL OR due <= statement_timestamp() ORDER BY rank, seq
    RETURNING id
), later AS (
    INSERT INTO jobwire.scheduled (queue, rank, seq, id, suspect, start_after)
    SELECT queue, rank, seq, id, suspect, due FROM input WHERE due > statement_timestamp()
)
SELECT id FROM now_ready
