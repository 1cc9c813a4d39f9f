-- The live jobs of some queues by what they wait for.
SELECT q.name, (SELECT count(*) FROM jobwire.ready r WHERE r.queue = q.name) AS ready, (SELECT count(*) FROM jobwire.scheduled s WHERE s.queue = q.name) AS scheduled,
    (SELECT count(*) FROM jobwire.blocked b WHERE b.queue = q.name) + (SELECT count(*) FROM jobwire.gate_event e WHERE e.queue = q.name AND e.kind = 1) AS blocked,
    (SELECT count(*) FROM jobwire.claim c CROSS JOIN LATERAL unnest(c.ids, c.attempts) AS m (id, attempt)
        JOIN jobwire.live_job j ON j.queue = c.queue AND j.id = m.id AND j.attempt = m.attempt WHERE c.queue = q.name) AS active
FROM unnest(%(names)b::text[]) AS q (name)
