-- A page of sessions by id, each with the number of its valid leases, and those of them that began first.
SELECT s.id, s.epoch, s.owner, s.worker, s.queues, s.shares, s.max_in_flight, s.opened_at, s.attached_at, s.detached_at, coalesce(s.renewed_at, s.attached_at) AS renewed_at, s.quiet_at,
    r.in_flight, r.run_queues[:%(running)s] AS run_queues, r.run_ids[:%(running)s] AS run_ids, r.run_attempts[:%(running)s] AS run_attempts, r.run_since[:%(running)s] AS run_since
FROM (
    SELECT * FROM jobwire.session
    WHERE (%(after)s::uuid IS NULL OR id > %(after)s::uuid) AND (%(queue)s::text IS NULL OR %(queue)s::text = ANY (queues))
    ORDER BY id LIMIT %(limit)s
) s
CROSS JOIN LATERAL (
    SELECT count(*)::int AS in_flight,
        array_agg(l.queue ORDER BY l.claimed_at, l.id) AS run_queues, array_agg(l.id ORDER BY l.claimed_at, l.id) AS run_ids,
        array_agg(l.attempt ORDER BY l.claimed_at, l.id) AS run_attempts, array_agg(l.claimed_at ORDER BY l.claimed_at, l.id) AS run_since
    FROM (
        SELECT c.queue, m.id, m.attempt, c.claimed_at
        FROM jobwire.claim c
        CROSS JOIN LATERAL unnest(c.ids, c.attempts) AS m (id, attempt)
        CROSS JOIN LATERAL (SELECT FROM jobwire.live_job k WHERE k.queue = c.queue AND k.id = m.id AND k.attempt = m.attempt OFFSET 0) j
        WHERE c.session_id = s.id
    ) l
) r
ORDER BY s.id
