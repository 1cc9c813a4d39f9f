-- Waiting jobs of one queue by their key, those that were stored last first, or the other way round.
SELECT j.id FROM jobwire.live_job j
WHERE j.queue = %(queue)s AND j.key = %(key)s
    AND (EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq)
        OR EXISTS (SELECT FROM jobwire.scheduled s WHERE s.queue = j.queue AND s.seq = j.seq)
        OR j.gated AND (EXISTS (SELECT FROM jobwire.blocked b WHERE b.queue = j.queue AND b.id = j.id)
            OR EXISTS (SELECT FROM jobwire.gate_event e WHERE e.queue = j.queue AND e.id = j.id AND e.kind = 1)))
ORDER BY CASE WHEN %(newest)s::bool THEN -j.seq ELSE j.seq END LIMIT %(limit)s
