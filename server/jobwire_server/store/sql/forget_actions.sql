-- Removes the oldest of what operators did more than so many days ago; returns how many.
WITH gone AS (
    DELETE FROM jobwire.action WHERE id = ANY (ARRAY(
        SELECT id FROM jobwire.action WHERE at < clock_timestamp() - %(days)s * interval '1 day' ORDER BY at LIMIT %(limit)s))
    RETURNING id
)
SELECT count(*)::int AS actions FROM gone
