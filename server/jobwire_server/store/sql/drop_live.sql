-- Removes some live jobs of one queue for good, whatever they wait for and whether they run, with their tickets; returns how many. Row locks in the order of the ids. A claim under way that
-- has taken a ticket before is waited for, and the lease that it gives is void from the start.
WITH some AS MATERIALIZED (
    SELECT j.queue, j.id, j.rank, j.seq FROM jobwire.live_job j WHERE j.queue = %(queue)s ORDER BY j.id LIMIT %(limit)s FOR UPDATE
), no_ticket AS (
    DELETE FROM jobwire.ready r USING some WHERE r.queue = some.queue AND r.rank = some.rank AND r.seq = some.seq
), no_appointment AS (
    DELETE FROM jobwire.scheduled s USING some WHERE s.queue = some.queue AND s.seq = some.seq
), gone AS (
    DELETE FROM jobwire.live_job j USING some WHERE j.queue = some.queue AND j.id = some.id RETURNING j.id
)
SELECT count(*)::int AS jobs FROM gone
