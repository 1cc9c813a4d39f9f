-- Has jobs, live or finished, of one queue that are to wait in a queue (`destination`) take the keys that its policy minds; returns those of which another job has the key. Keys are locked in
-- their order until the commit.
WITH job AS MATERIALIZED (
    SELECT j.id, j.key, j.attempt = 1 AS first_run FROM jobwire.live_job j WHERE j.queue = %(queue)s AND j.id = ANY (%(ids)b::uuid[])
    UNION ALL
    (SELECT DISTINCT ON (a.id) a.id, a.key, a.attempt = 0 FROM jobwire.archive a WHERE a.queue = %(queue)s AND a.id = ANY (%(ids)b::uuid[])
        AND NOT EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = a.queue AND j.id = a.id) ORDER BY a.id, a.finished_at DESC)
), listed AS MATERIALIZED (
    SELECT coalesce(array_agg(id ORDER BY key, id), '{}') AS ids, coalesce(array_agg(key ORDER BY key, id), '{}') AS keys, coalesce(array_agg(first_run ORDER BY key, id), '{}') AS first_runs FROM job
)
SELECT refused AS id FROM listed CROSS JOIN LATERAL jobwire.take_keys(%(destination)s, listed.ids, listed.keys, listed.first_runs) AS refused
