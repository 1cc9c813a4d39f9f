-- Removes some live jobs of one queue for good, whatever they wait for and whether they run, with their tickets; returns how many. Row locks in the order of the ids. A claim under way that
-- has taken a ticket before is waited for, and the lease that it gives is void from the start.
WITH those AS MATERIALIZED (
    SELECT j.queue, j.id, j.rank, j.seq FROM jobwire.live_job j WHERE j.queue = %(queue)s ORDER BY j.id LIMIT %(limit)s FOR UPDATE
), no_ticket AS (
    DELETE FROM jobwire.ready r USING those WHERE r.queue = those.queue AND r.rank = those.rank AND r.seq = those.seq
), no_appointment AS (
    DELETE FROM jobwire.scheduled s USING those WHERE s.queue = those.queue AND s.seq = those.seq
), no_turn AS (
    DELETE FROM jobwire.blocked b USING those WHERE b.queue = those.queue AND b.id = those.id
), gone AS (
    DELETE FROM jobwire.live_job j USING those WHERE j.queue = those.queue AND j.id = those.id RETURNING j.id
)
SELECT count(*)::int AS jobs FROM gone
