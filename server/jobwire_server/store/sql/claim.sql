-- Takes the first ready jobs of one queue for sessions of this replica, at most as many as each wants, in turn.
--
-- A session takes part only with the epoch that the caller knows, and stays locked until the commit, so that a resume elsewhere either
-- sees this claim or comes first. Only the ranges of the claim order that may hold tickets are read (dead entries before them are not
-- walked again). The tickets are locked lazily, as many as are taken and no more; the arrays fence the choice, so the
-- planner cannot run it twice. Jobs meet seats by number, in arrays, so the cost of a job is the same however many there are.
WITH party AS MATERIALIZED (
    SELECT w.want, w.place
    FROM unnest(%(sessions)b::uuid[], %(epochs)b::int8[], %(wants)b::int4[]) WITH ORDINALITY AS w (id, epoch, want, place)
    JOIN jobwire.session s ON s.id = w.id AND s.epoch = w.epoch AND s.owner = %(replica)s
    WHERE (SELECT q.claim_kind FROM jobwire.queue q WHERE q.name = %(queue)s) = %(kind)s
    ORDER BY s.id
    FOR SHARE OF s
), seat AS MATERIALIZED (
    SELECT count(*) AS count, array_agg(place ORDER BY turn, place) AS places, array_agg(turn ORDER BY turn, place) AS turns
    FROM party CROSS JOIN LATERAL generate_series(1, want) AS turn
), head AS MATERIALIZED (
    SELECT ARRAY(
        SELECT t.ctid FROM unnest(%(from_ranks)b::int4[], %(from_seqs)b::int8[], %(to_ranks)b::int4[]) AS span (from_rank, from_seq, to_rank)
        CROSS JOIN LATERAL (
            SELECT r.ctid FROM jobwire.ready r
            WHERE r.queue = %(queue)s AND (r.rank, r.seq) > (span.from_rank, span.from_seq) AND r.rank < span.to_rank AND NOT r.suspect
            ORDER BY r.rank, r.seq
            FOR UPDATE SKIP LOCKED
        ) t
        LIMIT (SELECT count FROM seat)
    ) AS ctids
), taken AS (
    DELETE FROM jobwire.ready r WHERE r.ctid = ANY ((SELECT ctids FROM head)::tid[]) RETURNING r.queue, r.rank, r.seq, r.id
), picked AS MATERIALIZED (
    SELECT t.rank, t.seq, j.id, j.data, j.headers, j.attempt, j.retry_count, j.retry_limit, j.created_at, j.expire_ms, j.checkpoint, j.origin,
        row_number() OVER (ORDER BY t.rank, t.seq) AS n
    FROM taken t CROSS JOIN LATERAL (SELECT k.* FROM jobwire.live_job k WHERE k.queue = t.queue AND k.id = t.id OFFSET 0) j
), recorded AS (
    INSERT INTO jobwire.claim (queue, token, session_id, epoch, worker, claimed_at, check_at, ids, attempts)
    SELECT %(queue)s, (%(tokens)b::uuid[])[place], (%(sessions)b::uuid[])[place], (%(epochs)b::int8[])[place],
        (SELECT s.worker FROM jobwire.session s WHERE s.id = (%(sessions)b::uuid[])[place]),
        clock_timestamp(), clock_timestamp() + expire_ms * interval '1 millisecond', ids, attempts
    FROM (
        SELECT s.places[p.n] AS place, min(p.expire_ms) AS expire_ms, array_agg(p.id ORDER BY p.n) AS ids, array_agg(p.attempt ORDER BY p.n) AS attempts
        FROM picked p CROSS JOIN seat s GROUP BY s.places[p.n]
    ) dealt
)
SELECT s.places[p.n] AS want, s.turns[p.n] AS place, p.rank, p.seq, uuid_send(p.id) AS id, p.data, p.headers, p.attempt, p.retry_count, p.retry_limit, p.created_at, p.expire_ms, p.checkpoint, p.origin
FROM picked p CROSS JOIN seat s ORDER BY p.rank, p.seq
