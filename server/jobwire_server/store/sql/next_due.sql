-- What nothing told of: which of some queues have tickets in the ranks asked for, by their places, how long until the next scheduled job or the next gate to be
-- opened, in milliseconds (null if there is none; `greatest` alone would make 0 of it), whether a claim's limits are to be looked at now, the gates of which
-- queues, how long until a schedule is due, whether there are dead letters to be carried over, and the queues whose jobs may wait for so long only. One
-- statement for all of it, since a replica asks each second while nothing happens.
SELECT ARRAY(SELECT q.place::int FROM unnest(%(queues)b::text[], %(lows)b::int4[], %(highs)b::int4[]) WITH ORDINALITY AS q (name, low, high, place)
        WHERE EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = q.name AND r.rank BETWEEN q.low AND q.high)) AS ready,
    CASE WHEN s.first IS NOT NULL THEN (greatest(0, extract(epoch FROM s.first - clock_timestamp())) * 1000)::bigint END AS job_in_ms,
    EXISTS (SELECT FROM jobwire.claim WHERE check_at <= clock_timestamp()) AS claim,
    -- A queue without gates may have events as well, of jobs that came just when it lost them: one such queue is found at a time.
    ARRAY(SELECT q.name FROM jobwire.queue q WHERE q.gated AND (EXISTS (SELECT FROM jobwire.gate_event e WHERE e.queue = q.name)
            OR EXISTS (SELECT FROM jobwire.rate r WHERE r.queue = q.name AND r.open_at <= clock_timestamp()))
        UNION (SELECT e.queue FROM jobwire.gate_event e ORDER BY e.queue, e.n LIMIT 1)) AS gates,
    CASE WHEN p.first IS NOT NULL THEN ceil(greatest(0, extract(epoch FROM p.first - clock_timestamp())) * 1000)::bigint END AS schedule_in_ms,
    EXISTS (SELECT FROM jobwire.dead_letter d WHERE d.retry_at <= clock_timestamp()) AS letters,
    ARRAY(SELECT q.name FROM jobwire.queue q WHERE q.waiting_ms IS NOT NULL) AS waiting
FROM (SELECT least((SELECT min(start_after) FROM jobwire.scheduled), (SELECT min(open_at) FROM jobwire.rate)) AS first) s,
    (SELECT min(look_at) AS first FROM jobwire.schedule) p
