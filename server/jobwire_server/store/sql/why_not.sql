-- What stands in the way of Acks of one queue that found no valid lease: the job's state and the token of the delivery that was settled last, live first.
SELECT j.id, CASE WHEN EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq)
        OR EXISTS (SELECT FROM jobwire.scheduled s WHERE s.queue = j.queue AND s.seq = j.seq)
        OR j.gated AND (EXISTS (SELECT FROM jobwire.blocked b WHERE b.queue = j.queue AND b.id = j.id)
            OR EXISTS (SELECT FROM jobwire.gate_event e WHERE e.queue = j.queue AND e.id = j.id AND e.kind = 1))
    THEN CASE WHEN j.attempt = 1 THEN 1 ELSE 2 END ELSE 3 END AS state, j.settled_token AS token
FROM jobwire.live_job j WHERE j.queue = %(queue)s AND j.id = ANY (%(ids)b::uuid[])
UNION ALL
(SELECT a.id, a.state, a.token FROM jobwire.archive a WHERE a.queue = %(queue)s AND a.id = ANY (%(ids)b::uuid[]) ORDER BY a.finished_at DESC)
