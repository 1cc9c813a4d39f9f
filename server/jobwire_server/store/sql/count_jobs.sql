-- The jobs of some queues by what they wait for, and those that failed, each counted up to `most`, beyond which the statistics' estimate stands. And how old the oldest is of those that are first in
-- line at each of the first hundred priorities, in milliseconds. All of it is read by index, and no more of it than is counted.
SELECT q.name,
    CASE WHEN n.ready <= %(most)s THEN n.ready ELSE greatest(n.ready, jobwire.estimated('ready', q.name)) END AS ready,
    CASE WHEN n.scheduled <= %(most)s THEN n.scheduled ELSE greatest(n.scheduled, jobwire.estimated('scheduled', q.name)) END AS scheduled,
    CASE WHEN n.active <= %(most)s THEN n.active ELSE (SELECT sum(cardinality(c.ids)) FROM jobwire.claim c WHERE c.queue = q.name)::bigint END AS active,
    CASE WHEN n.blocked <= %(most)s THEN n.blocked ELSE greatest(n.blocked, jobwire.estimated('blocked', q.name)) END AS blocked,
    CASE WHEN n.failed <= %(most)s THEN n.failed ELSE greatest(n.failed, jobwire.estimated('failed', q.name)) END AS failed,
    h.oldest_ready_ms
FROM unnest(%(names)b::text[]) AS q (name)
CROSS JOIN LATERAL (SELECT
    (SELECT count(*) FROM (SELECT FROM jobwire.ready r WHERE r.queue = q.name LIMIT %(most)s + 1) r) AS ready,
    (SELECT count(*) FROM (SELECT FROM jobwire.scheduled s WHERE s.queue = q.name LIMIT %(most)s + 1) s) AS scheduled,
    (SELECT count(*) FROM (
        SELECT FROM jobwire.blocked b WHERE b.queue = q.name UNION ALL SELECT FROM jobwire.gate_event e WHERE e.queue = q.name AND e.kind = 1 LIMIT %(most)s + 1) b) AS blocked,
    (SELECT count(*) FROM (
        SELECT FROM jobwire.claim c CROSS JOIN LATERAL unnest(c.ids, c.attempts) AS m (id, attempt)
        CROSS JOIN LATERAL (SELECT FROM jobwire.live_job k WHERE k.queue = c.queue AND k.id = m.id AND k.attempt = m.attempt OFFSET 0) j
        WHERE c.queue = q.name LIMIT %(most)s + 1) a) AS active,
    (SELECT count(*) FROM (SELECT FROM jobwire.archive a WHERE a.queue = q.name AND a.state <> 4 AND a.state = 6 LIMIT %(most)s + 1) f) AS failed
    OFFSET 0) n
CROSS JOIN LATERAL (
    WITH RECURSIVE head AS (
        (SELECT r.rank, r.id, 1 AS n FROM jobwire.ready r WHERE r.queue = q.name ORDER BY r.rank, r.seq LIMIT 1)
        UNION ALL
        SELECT t.rank, t.id, head.n + 1 FROM head
        CROSS JOIN LATERAL (SELECT r.rank, r.id FROM jobwire.ready r WHERE r.queue = q.name AND r.rank > head.rank ORDER BY r.rank, r.seq LIMIT 1) t
        WHERE head.n < 100
    )
    SELECT CASE WHEN count(*) > 0 THEN greatest(0, extract(epoch FROM max(clock_timestamp() - j.start_after)) * 1000)::bigint END AS oldest_ready_ms
    FROM head CROSS JOIN LATERAL (SELECT k.start_after FROM jobwire.live_job k WHERE k.queue = q.name AND k.id = head.id OFFSET 0) j
) h
