-- Gives tickets to live jobs of one queue that have none: where a job comes (back) to wait that no lease of its own brought there. With a time to come it waits for that (`dues`), else it
-- goes to the queue's gates, or may be claimed where there are none. In strict order it waits for its time behind the gate, where it holds up its key. Returns those that wait for no time.
WITH input AS MATERIALIZED (
    SELECT j.queue, j.rank, j.seq, j.id, j.loss_count >= %(suspect)s AS suspect, i.due, coalesce(i.due > statement_timestamp(), false) AS later,
        coalesce(q.gated, false) AS gated, coalesce(q.gated AND q.policy = 5, false) AS strict
    FROM unnest(%(ids)b::uuid[], %(dues)b::timestamptz[]) AS i (id, due)
    CROSS JOIN LATERAL (SELECT k.* FROM jobwire.live_job k WHERE k.queue = %(queue)s AND k.id = i.id OFFSET 0) j
    LEFT JOIN jobwire.queue q ON q.name = j.queue
), marked AS (
    UPDATE jobwire.live_job j SET gated = CASE WHEN i.gated THEN true END, start_after = CASE WHEN i.strict AND i.later THEN i.due ELSE j.start_after END
    FROM input i WHERE j.queue = i.queue AND j.id = i.id AND (coalesce(j.gated, false) <> i.gated OR i.strict AND i.later)
), now_ready AS (
    INSERT INTO jobwire.ready (queue, rank, seq, id, suspect)
    SELECT queue, rank, seq, id, suspect FROM input WHERE NOT gated AND NOT later ORDER BY rank, seq
), later AS (
    INSERT INTO jobwire.scheduled (queue, rank, seq, id, suspect, start_after, gated)
    SELECT queue, rank, seq, id, suspect, due, gated FROM input WHERE later AND NOT strict
), to_gates AS (
    INSERT INTO jobwire.gate_event (queue, id, kind, suspect)
    SELECT queue, id, CASE WHEN later AND NOT strict THEN 4 ELSE 1 END, suspect FROM input WHERE gated ORDER BY rank, seq
)
SELECT id FROM input WHERE gated OR NOT later
