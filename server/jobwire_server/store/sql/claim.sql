-- Takes the first ready jobs of one queue for sessions of this replica, at most as many as each wants, in turn.
--
-- A session takes part only with the epoch that the caller knows, and stays locked until the commit, so that a resume elsewhere either
-- sees this claim or comes first. Only the ranges of the claim order that may hold tickets are read (dead entries before them are not
-- walked again). The tickets are locked lazily, as many as are taken and no more; the arrays fence the choice, so the
-- planner cannot run it twice.
WITH party AS MATERIALIZED (
    SELECT s.id, s.epoch, s.worker, w.token, w.want, w.place
    FROM unnest(%(sessions)b::uuid[], %(epochs)b::int8[], %(tokens)b::uuid[], %(wants)b::int4[]) WITH ORDINALITY AS w (id, epoch, token, want, place)
    JOIN jobwire.session s ON s.id = w.id AND s.epoch = w.epoch AND s.owner = %(replica)s
    ORDER BY s.id
    FOR SHARE OF s
), seat AS MATERIALIZED (
    SELECT token, row_number() OVER (ORDER BY turn, place) AS n FROM party CROSS JOIN LATERAL generate_series(1, want) AS turn
), head AS MATERIALIZED (
    SELECT ARRAY(
        SELECT t.ctid FROM unnest(%(from_ranks)b::int4[], %(from_seqs)b::int8[], %(to_ranks)b::int4[]) AS span (from_rank, from_seq, to_rank)
        CROSS JOIN LATERAL (
            SELECT r.ctid FROM jobwire.ready r
            WHERE r.queue = %(queue)s AND (r.rank, r.seq) > (span.from_rank, span.from_seq) AND r.rank < span.to_rank AND NOT r.suspect
            ORDER BY r.rank, r.seq
            FOR UPDATE SKIP LOCKED
        ) t
        LIMIT (SELECT count(*) FROM seat)
    ) AS ctids
), taken AS (
    DELETE FROM jobwire.ready r WHERE r.ctid = ANY ((SELECT ctids FROM head)::tid[]) RETURNING r.queue, r.rank, r.seq, r.id
), picked AS MATERIALIZED (
    SELECT t.rank, t.seq, j.id, j.data, j.headers, j.attempt, j.retry_count, j.retry_limit, j.created_at, j.expire_ms,
        row_number() OVER (ORDER BY t.rank, t.seq) AS n
    FROM taken t CROSS JOIN LATERAL (SELECT k.* FROM jobwire.live_job k WHERE k.queue = t.queue AND k.id = t.id OFFSET 0) j
), dealt AS MATERIALIZED (
    SELECT p.*, s.token, row_number() OVER (PARTITION BY s.token ORDER BY p.n) AS place FROM picked p JOIN seat s ON s.n = p.n
), recorded AS (
    INSERT INTO jobwire.claim (queue, token, session_id, epoch, worker, claimed_at, check_at, ids, attempts)
    SELECT %(queue)s, p.token, p.id, p.epoch, p.worker, clock_timestamp(), clock_timestamp() + min(d.expire_ms) * interval '1 millisecond',
        array_agg(d.id ORDER BY d.place), array_agg(d.attempt ORDER BY d.place)
    FROM dealt d JOIN party p ON p.token = d.token
    GROUP BY p.token, p.id, p.epoch, p.worker
)
SELECT token, place, rank, seq, id, data, headers, attempt, retry_count, retry_limit, created_at, expire_ms FROM dealt ORDER BY n
