-- Records `completed` for deliveries whose lease is valid; returns the places in the call of those, if not of all. The input is in the order of queues and ids, and so are the locks.
-- The first queue is that of all deliveries for which none is named.
-- Claims are looked up one by one (OFFSET 0). So are live rows: a list of one queue and a range of one id cannot be joined the other way
-- round, so that no plan can read more than the rows named, whatever the statistics it was made with.
WITH input AS MATERIALIZED (
    SELECT coalesce(i.queue, (%(queues)b::text[])[1]) COLLATE "C" AS queue, i.id, i.token, i.place, i.output, i.n
    FROM unnest(%(queues)b::text[], %(ids)b::uuid[], %(tokens)b::uuid[], %(places)b::int4[], %(outputs)b::text[]) WITH ORDINALITY AS i (queue, id, token, place, output, n)
), lease AS MATERIALIZED (
    SELECT i.queue, i.id, i.n, i.output, i.token, c.attempts[i.place] AS attempt, c.claimed_at, c.worker
    FROM input i
    CROSS JOIN LATERAL (SELECT k.* FROM jobwire.claim k WHERE k.queue = i.queue AND k.token = i.token AND k.ids[i.place] = i.id OFFSET 0) c
), gone AS (
    DELETE FROM jobwire.live_job j USING lease l WHERE j.queue = ANY (ARRAY[l.queue]) AND j.id >= l.id AND j.id <= l.id AND j.attempt = l.attempt
    RETURNING j.*, l.n, l.output AS result, l.token AS by_token, l.claimed_at, l.worker AS by_worker
), archived AS (
    INSERT INTO jobwire.archive (queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
        created_at, start_after, started_at, finished_at, drop_on, state, token, worker, progress, progress_count, errors, headers, data, output, key, group_id, tier, dead_letter, origin, checkpoint)
    SELECT queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
        created_at, start_after, claimed_at, clock_timestamp(), jobwire.drop_day(retention_ms), 4, by_token, by_worker, progress, progress_count, errors, headers, data, result, key, group_id, tier, dead_letter, origin, checkpoint
    FROM gone
), left_gates AS (
    INSERT INTO jobwire.gate_event (queue, id, kind) SELECT queue, id, 2 FROM gone WHERE gated
)
SELECT CASE WHEN count(*) < cardinality(%(ids)b::uuid[]) THEN coalesce(array_agg(n), '{}') END AS places FROM gone
