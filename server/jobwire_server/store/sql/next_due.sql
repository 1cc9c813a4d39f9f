-- What nothing told of: which of some queues have tickets in the ranks asked for, by their places, how long until the next scheduled job, in milliseconds (null if there is none;
-- `greatest` alone would make 0 of it), and whether a claim's limits are to be looked at now. One statement for all of it, since a
-- replica asks each second while nothing happens.
SELECT ARRAY(SELECT q.place::int FROM unnest(%(queues)b::text[], %(lows)b::int4[], %(highs)b::int4[]) WITH ORDINALITY AS q (name, low, high, place)
        WHERE EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = q.name AND r.rank BETWEEN q.low AND q.high)) AS ready,
    CASE WHEN s.first IS NOT NULL THEN (greatest(0, extract(epoch FROM s.first - clock_timestamp())) * 1000)::bigint END AS job_in_ms,
    EXISTS (SELECT FROM jobwire.claim WHERE check_at <= clock_timestamp()) AS claim
FROM (SELECT min(start_after) AS first FROM jobwire.scheduled) s
