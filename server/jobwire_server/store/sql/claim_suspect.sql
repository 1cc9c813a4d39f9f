-- Takes the first suspect job of one queue that is in some ranks, alone, for one session; otherwise as `claim`.
WITH party AS MATERIALIZED (
    SELECT s.id, s.epoch, s.worker FROM jobwire.session s WHERE s.id = %(session)s AND s.epoch = %(epoch)s AND s.owner = %(replica)s
        AND (SELECT q.claim_kind FROM jobwire.queue q WHERE q.name = %(queue)s) = %(kind)s FOR SHARE
), taken AS (
    DELETE FROM jobwire.ready r WHERE r.ctid = ANY (ARRAY(
        SELECT t.ctid FROM jobwire.ready t WHERE t.queue = %(queue)s AND t.rank BETWEEN %(low)s::int4 AND %(high)s::int4 AND t.suspect
        ORDER BY t.rank, t.seq LIMIT (SELECT count(*) FROM party) FOR UPDATE SKIP LOCKED))
    RETURNING r.queue, r.rank, r.seq, r.id
), picked AS MATERIALIZED (
    SELECT t.rank, t.seq, j.id, j.data, j.headers, j.attempt, j.retry_count, j.retry_limit, j.created_at, j.expire_ms, j.checkpoint, j.origin
    FROM taken t CROSS JOIN LATERAL (SELECT k.* FROM jobwire.live_job k WHERE k.queue = t.queue AND k.id = t.id OFFSET 0) j
), recorded AS (
    INSERT INTO jobwire.claim (queue, token, session_id, epoch, worker, claimed_at, check_at, ids, attempts)
    SELECT %(queue)s, %(token)s, p.id, p.epoch, p.worker, clock_timestamp(), clock_timestamp() + d.expire_ms * interval '1 millisecond', ARRAY[d.id], ARRAY[d.attempt]
    FROM picked d CROSS JOIN party p
)
SELECT 1 AS want, 1::bigint AS place, rank, seq, uuid_send(id) AS id, data, headers, attempt, retry_count, retry_limit, created_at, expire_ms, checkpoint, origin FROM picked
