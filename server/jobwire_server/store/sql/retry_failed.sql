-- Brings failed jobs of a queue whose order is strict back, each first in its key, which it holds still: with its place (where groups take turns, its number may be another's by now: a new one), its errors and its number of deliveries, and all its retries. Returns their ids.
WITH old AS (
    DELETE FROM jobwire.archive a USING unnest(%(ids)b::uuid[], %(times)b::timestamptz[]) AS i (id, failed_at)
    WHERE a.queue = %(queue)s AND a.id = i.id AND a.finished_at = i.failed_at AND a.state = 6
        AND NOT EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = %(queue)s AND j.id = i.id)
    RETURNING a.*
), back AS (
    INSERT INTO jobwire.live_job (queue, id, seq, rank, attempt, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
        created_at, start_after, settled_token, started_at, worker, progress, progress_count, errors, headers, data, key, group_id, tier, dead_letter, origin, checkpoint, gated, waits_since)
    SELECT queue, id, CASE WHEN (SELECT q.fair FROM jobwire.queue q WHERE q.name = %(queue)s) THEN nextval('jobwire.job_seq') ELSE seq END, rank, attempt + 1, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
        created_at, least(start_after, clock_timestamp()), token, started_at, worker, progress, progress_count, errors, headers, data, key, group_id, tier,
        CASE WHEN dead_letter IS DISTINCT FROM (SELECT q.dead_letter FROM jobwire.queue q WHERE q.name = %(queue)s) THEN dead_letter END, origin, checkpoint, true, clock_timestamp()
    FROM old
    RETURNING queue, id
), to_gates AS (
    INSERT INTO jobwire.gate_event (queue, id, kind) SELECT queue, id, 1 FROM back
), held AS (
    UPDATE jobwire.slot s SET failed = false FROM back b WHERE s.queue = b.queue AND s.id = b.id
)
SELECT id FROM back
