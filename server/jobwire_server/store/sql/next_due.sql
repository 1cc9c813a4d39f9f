-- What nothing told of: which of some queues have tickets, how long until the next scheduled job, in milliseconds (null if there is none;
-- `greatest` alone would make 0 of it), whether a claim's limits are to be looked at now, and how long until a schedule is to be, in milliseconds. One statement for all of it, since a
-- replica asks each second while nothing happens.
SELECT ARRAY(SELECT q.name FROM unnest(%(queues)b::text[]) AS q (name) WHERE EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = q.name)) AS ready,
    CASE WHEN s.first IS NOT NULL THEN (greatest(0, extract(epoch FROM s.first - clock_timestamp())) * 1000)::bigint END AS job_in_ms,
    EXISTS (SELECT FROM jobwire.claim WHERE check_at <= clock_timestamp()) AS claim,
    CASE WHEN p.first IS NOT NULL THEN ceil(greatest(0, extract(epoch FROM p.first - clock_timestamp())) * 1000)::bigint END AS schedule_in_ms
FROM (SELECT min(start_after) AS first FROM jobwire.scheduled) s, (SELECT min(look_at) AS first FROM jobwire.schedule) p
