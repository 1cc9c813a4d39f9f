-- Removes some finished jobs of one queue for good; returns how many.
WITH some AS MATERIALIZED (
    SELECT a.queue, a.id, a.drop_on, a.finished_at FROM jobwire.archive a WHERE a.queue = %(queue)s ORDER BY a.id LIMIT %(limit)s
), gone AS (
    DELETE FROM jobwire.archive a USING some WHERE a.queue = some.queue AND a.id = some.id AND a.drop_on = some.drop_on AND a.finished_at = some.finished_at RETURNING a.id
)
SELECT count(*)::int AS jobs FROM gone
