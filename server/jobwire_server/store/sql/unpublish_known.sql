-- Takes back what `publish` or `hand_over` stored in this transaction although a job of that id has finished lately; returns those ids.
-- A claim, one of `tokens`, in which they were handed over does not name them any more, and is gone if it named nothing else.
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
), no_lease AS (
    UPDATE jobwire.claim c SET ids = ARRAY(SELECT CASE WHEN NOT EXISTS (SELECT FROM gone WHERE gone.id = u.id) THEN u.id END FROM unnest(c.ids) WITH ORDINALITY AS u (id, place) ORDER BY place)
    WHERE c.queue = %(queue)s AND c.token = ANY (%(tokens)b::uuid[]) AND NOT c.ids <@ ARRAY(SELECT id FROM gone) AND c.ids && ARRAY(SELECT id FROM gone)
), no_claim AS (
    DELETE FROM jobwire.claim c WHERE c.queue = %(queue)s AND c.token = ANY (%(tokens)b::uuid[]) AND c.ids <@ ARRAY(SELECT id FROM gone)
)
SELECT id FROM gone
