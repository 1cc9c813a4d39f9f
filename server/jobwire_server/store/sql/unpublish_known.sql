-- Takes back what `publish` stored in this transaction although a job of that id has finished lately; returns those ids.
-- A statement of its own: only a snapshot taken after the insert sees a job that moved to the archive just before it.
WITH known AS MATERIALIZED (
    SELECT DISTINCT %(queue)s::text COLLATE "C" AS queue, i.id FROM unnest(%(ids)b::uuid[]) AS i (id)
    WHERE EXISTS (SELECT FROM jobwire.archive a
        WHERE a.queue = %(queue)s AND a.id = i.id AND a.finished_at > clock_timestamp() - %(hours)s * interval '1 hour')
), gone AS (
    DELETE FROM jobwire.live_job j USING known WHERE j.queue = known.queue AND j.id = known.id AND j.queue = %(queue)s AND j.id = ANY (ARRAY(SELECT id FROM known))
        AND j.xmin = pg_current_xact_id()::xid
    RETURNING j.queue, j.id, j.rank, j.seq
), no_ticket AS (
    DELETE FROM jobwire.ready r USING gone WHERE r.queue = gone.queue AND r.rank = gone.rank AND r.seq = gone.seq
), no_appointment AS (
    DELETE FROM jobwire.scheduled s USING gone WHERE s.queue = gone.queue AND s.seq = gone.seq
)
SELECT id FROM gone
