-- Stores jobs of one queue as `publish` does, none of which waits for a time, and has the first of them claimed in the same breath, as `claim`
-- does: they never have a ticket. Where tickets wait already, new jobs are behind them, and get tickets too.
--
-- A session may have several claims, of which the one with fewer seats `before` it is filled first.
--
-- The sessions are locked before the jobs are written, as everywhere. Returns in claim order the ids stored, and in the same order the seats,
-- each by which of the wants it belongs to and its place in the claim: as many jobs as there are seats are claimed.
WITH party AS MATERIALIZED (
    SELECT w.want, w.before, w.place
    FROM unnest(%(sessions)b::uuid[], %(epochs)b::int8[], %(wants)b::int4[], %(befores)b::int4[]) WITH ORDINALITY AS w (id, epoch, want, before, place)
    JOIN jobwire.session s ON s.id = w.id AND s.epoch = w.epoch AND s.owner = %(replica)s
    ORDER BY s.id
    FOR SHARE OF s
), overtaken AS MATERIALIZED (
    SELECT FROM unnest(%(from_ranks)b::int4[], %(from_seqs)b::int8[], %(to_ranks)b::int4[]) AS span (from_rank, from_seq, to_rank)
    CROSS JOIN LATERAL (
        SELECT FROM jobwire.ready r
        WHERE r.queue = %(queue)s AND (r.rank, r.seq) > (span.from_rank, span.from_seq) AND r.rank < span.to_rank AND NOT r.suspect
        ORDER BY r.rank, r.seq LIMIT 1
    ) t LIMIT 1
), seat AS MATERIALIZED (
    SELECT count(*) AS count, array_agg(place ORDER BY before + turn, place) AS places, array_agg(turn ORDER BY before + turn, place) AS turns
    FROM party CROSS JOIN LATERAL generate_series(1, want) AS turn
    WHERE NOT EXISTS (SELECT FROM overtaken) AND (SELECT q.claim_kind FROM jobwire.queue q WHERE q.name = %(queue)s) = 0
), input AS MATERIALIZED (
    SELECT i.*, nextval('jobwire.job_seq') AS seq
    FROM seat CROSS JOIN unnest(%(ids)b::uuid[], %(datas)b::text[], %(ranks)b::int4[], %(headers)b::text[], %(rules)b::int4[]) AS i (id, data, rank, headers, rule)
    WHERE NOT (SELECT q.guarded FROM jobwire.queue q WHERE q.name = %(queue)s)
), stored AS (
    INSERT INTO jobwire.live_job (queue, id, seq, rank, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, created_at, start_after, headers, data)
    SELECT %(queue)s, id, seq, rank, (%(retry_limits)b::int4[])[rule], (%(retry_delays)b::int8[])[rule], (%(retry_backoffs)b::bool[])[rule],
        (%(retry_delay_maxs)b::int8[])[rule], (%(expires)b::int8[])[rule], (%(retentions)b::int8[])[rule], statement_timestamp(), statement_timestamp(), headers, data
    FROM input ORDER BY id
    ON CONFLICT (queue, id) DO NOTHING
    RETURNING id, seq, rank, attempt, expire_ms
), ranked AS MATERIALIZED (
    SELECT stored.*, row_number() OVER (ORDER BY rank, seq) AS n FROM stored
), now_ready AS (
    INSERT INTO jobwire.ready (queue, rank, seq, id)
    SELECT %(queue)s, rank, seq, id FROM ranked WHERE n > (SELECT count FROM seat) ORDER BY rank, seq
), recorded AS (
    INSERT INTO jobwire.claim (queue, token, session_id, epoch, worker, claimed_at, check_at, ids, attempts)
    SELECT %(queue)s, (%(tokens)b::uuid[])[place], (%(sessions)b::uuid[])[place], (%(epochs)b::int8[])[place],
        (SELECT s.worker FROM jobwire.session s WHERE s.id = (%(sessions)b::uuid[])[place]),
        clock_timestamp(), clock_timestamp() + expire_ms * interval '1 millisecond', ids, attempts
    FROM (
        SELECT s.places[r.n] AS place, min(r.expire_ms) AS expire_ms, array_agg(r.id ORDER BY r.n) AS ids, array_agg(r.attempt ORDER BY r.n) AS attempts
        FROM ranked r CROSS JOIN seat s WHERE r.n <= s.count GROUP BY s.places[r.n]
    ) dealt
)
SELECT coalesce((SELECT array_agg(id ORDER BY n) FROM ranked), '{}') AS ids, s.places AS wants, s.turns AS places, statement_timestamp() AS created_at,
    NOT EXISTS (SELECT FROM ranked) AND (SELECT q.guarded FROM jobwire.queue q WHERE q.name = %(queue)s) IS NOT FALSE AS guarded
FROM seat s
