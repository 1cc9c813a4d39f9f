-- The failed jobs that hold up keys of a queue, whose row is locked, with the newest record of each that is kept: when it failed, and where its dead letter went ('': nowhere).
SELECT substr(s.gate, 2) AS key, s.id, a.finished_at AS failed_at, coalesce(a.dead_letter, '') AS went_to,
    coalesce((SELECT q.dead_letter FROM jobwire.queue q WHERE q.name = %(queue)s), '') AS dead_letter
FROM jobwire.slot s
LEFT JOIN LATERAL (SELECT o.finished_at, o.dead_letter FROM jobwire.archive o WHERE o.queue = %(queue)s AND o.id = s.id AND o.state = 6 ORDER BY o.finished_at DESC LIMIT 1) a ON true
WHERE s.queue = %(queue)s AND s.failed AND s.gate = ANY (ARRAY(SELECT 'k' || k.key FROM unnest(%(keys)b::text[]) AS k (key)))
