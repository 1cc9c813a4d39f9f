-- Stores jobs of one queue, those whose id is not live yet; returns the ids of those, if it is not all.
-- Sequence numbers follow the order of the arrays, row locks the order of the ids, so that two calls cannot deadlock.
-- Nothing is stored if the queue's jobs pass gates or have their keys minded by now: that is `publish_keyed`.
-- The time is that of the statement, the same for all it does: a job is ready or scheduled, and never both or neither.
WITH input AS MATERIALIZED (
    SELECT i.*, nextval('jobwire.job_seq') AS seq,
        greatest(coalesce(i.start_at, statement_timestamp() + i.start_in_ms * interval '1 millisecond'), statement_timestamp()) AS due
    FROM unnest(%(ids)b::uuid[], %(datas)b::text[], %(ranks)b::int4[], %(headers)b::text[], %(starts)b::timestamptz[], %(delays)b::int8[], %(rules)b::int4[])
        AS i (id, data, rank, headers, start_at, start_in_ms, rule)
    WHERE NOT (SELECT q.guarded FROM jobwire.queue q WHERE q.name = %(queue)s)
), stored AS (
    INSERT INTO jobwire.live_job (queue, id, seq, rank, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, start_after, headers, data)
    SELECT %(queue)s, id, seq, rank, (%(retry_limits)b::int4[])[rule], (%(retry_delays)b::int8[])[rule], (%(retry_backoffs)b::bool[])[rule],
        (%(retry_delay_maxs)b::int8[])[rule], (%(expires)b::int8[])[rule], (%(retentions)b::int8[])[rule], due, headers, data
    FROM input ORDER BY id
    ON CONFLICT (queue, id) DO NOTHING
    RETURNING id, seq, rank, start_after
), now_ready AS (
    INSERT INTO jobwire.ready (queue, rank, seq, id)
    SELECT %(queue)s, rank, seq, id FROM stored WHERE start_after <= statement_timestamp() ORDER BY rank, seq
), later AS (
    INSERT INTO jobwire.scheduled (queue, rank, seq, id, start_after)
    SELECT %(queue)s, rank, seq, id, start_after FROM stored WHERE start_after > statement_timestamp()
)
SELECT CASE WHEN count(*) < cardinality(%(ids)b::uuid[]) THEN coalesce(array_agg(id), '{}') END AS ids,
    CASE WHEN count(*) < cardinality(%(ids)b::uuid[]) THEN (SELECT q.guarded FROM jobwire.queue q WHERE q.name = %(queue)s) IS NOT FALSE ELSE false END AS guarded
FROM stored
