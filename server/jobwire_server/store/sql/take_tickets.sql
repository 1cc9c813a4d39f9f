-- Takes the tickets of those of the jobs of one queue that wait, if `scheduled_only` of those that wait for a time; says for when each was. Their rows are locked already, in the order of
-- their ids. Whoever takes a job's ticket away decides on it: a claim that was faster leaves it active, and it is not returned. Slots stay until the gates learn what became of the job.
WITH wanted AS MATERIALIZED (
    SELECT j.queue, j.id, j.rank, j.seq FROM jobwire.live_job j WHERE j.queue = %(queue)s AND j.id = ANY (%(ids)b::uuid[])
), from_ready AS (
    DELETE FROM jobwire.ready r USING wanted w WHERE NOT %(scheduled_only)s::bool AND r.queue = w.queue AND r.rank = w.rank AND r.seq = w.seq RETURNING r.id
), from_scheduled AS (
    DELETE FROM jobwire.scheduled s USING wanted w WHERE s.queue = w.queue AND s.seq = w.seq RETURNING s.id, s.start_after
), from_blocked AS (
    DELETE FROM jobwire.blocked b USING wanted w WHERE NOT %(scheduled_only)s::bool AND b.queue = w.queue AND b.id = w.id RETURNING b.id
), from_events AS (
    DELETE FROM jobwire.gate_event e USING wanted w WHERE NOT %(scheduled_only)s::bool AND e.queue = w.queue AND e.id = w.id AND e.kind = 1 RETURNING e.id
)
SELECT id, NULL::timestamptz AS due FROM from_ready UNION ALL SELECT id, start_after FROM from_scheduled UNION ALL SELECT id, NULL FROM from_blocked UNION ALL SELECT id, NULL FROM from_events
