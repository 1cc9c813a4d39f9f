-- Stores jobs of one queue, those whose id is not live yet; returns the ids stored and whether each can be claimed now.
-- Sequence numbers follow the order of the arrays, row locks the order of the ids, so that two calls cannot deadlock.
WITH input AS MATERIALIZED (
    SELECT i.id, i.data, i.rank, i.headers, o.*, nextval('jobwire.job_seq') AS seq,
        greatest(coalesce(i.start_at, clock_timestamp() + i.start_in_ms * interval '1 millisecond'), clock_timestamp()) AS due
    FROM unnest(%(ids)b::uuid[], %(datas)b::text[], %(ranks)b::int4[], %(headers)b::text[], %(starts)b::timestamptz[], %(delays)b::int8[], %(rules)b::int4[])
        AS i (id, data, rank, headers, start_at, start_in_ms, rule)
    JOIN unnest(%(retry_limits)b::int4[], %(retry_delays)b::int8[], %(retry_backoffs)b::bool[], %(retry_delay_maxs)b::int8[], %(expires)b::int8[], %(retentions)b::int8[])
        WITH ORDINALITY AS o (retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, rule)
        ON o.rule = i.rule
), stored AS (
    INSERT INTO jobwire.live_job (queue, id, seq, rank, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, start_after, headers, data)
    SELECT %(queue)s, id, seq, rank, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, due, headers, data
    FROM input ORDER BY id
    ON CONFLICT (queue, id) DO NOTHING
    RETURNING id, seq, rank, start_after
), now_ready AS (
    INSERT INTO jobwire.ready (queue, rank, seq, id)
    SELECT %(queue)s, rank, seq, id FROM stored WHERE start_after <= clock_timestamp() ORDER BY rank, seq
    RETURNING seq
), later AS (
    INSERT INTO jobwire.scheduled (queue, rank, seq, id, start_after)
    SELECT %(queue)s, rank, seq, id, start_after FROM stored WHERE NOT EXISTS (SELECT FROM now_ready WHERE now_ready.seq = stored.seq)
)
SELECT id, start_after FROM stored
