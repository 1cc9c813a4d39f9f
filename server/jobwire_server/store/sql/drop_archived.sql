-- Removes some finished jobs of one queue for good; returns how many.
WITH those AS MATERIALIZED (
    SELECT a.queue, a.id, a.drop_on, a.finished_at FROM jobwire.archive a WHERE a.queue = %(queue)s ORDER BY a.id LIMIT %(limit)s
), gone AS (
    DELETE FROM jobwire.archive a USING those WHERE a.queue = those.queue AND a.id = those.id AND a.drop_on = those.drop_on AND a.finished_at = those.finished_at RETURNING a.id
)
SELECT count(*)::int AS jobs FROM gone
