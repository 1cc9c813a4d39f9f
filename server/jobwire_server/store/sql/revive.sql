-- Brings finished jobs of one queue, of which the newest of their id is in one of the states, back among the live ones; their tickets come later in the same transaction. With `anew` they have
-- all their retries before them and may run now, else all is as it was. Their attempts are counted on, so no lease of old is valid. A job whose id is live again stays finished.
-- Returns them with the time for which they wait.
WITH newest AS MATERIALIZED (
    SELECT DISTINCT ON (a.id) a.queue, a.id, a.drop_on, a.finished_at, a.state FROM jobwire.archive a
    WHERE a.queue = %(queue)s AND a.id = ANY (%(ids)b::uuid[]) ORDER BY a.id, a.finished_at DESC
), gone AS (
    DELETE FROM jobwire.archive a USING newest n
    WHERE n.state = ANY (%(states)b::int4[]) AND a.queue = n.queue AND a.id = n.id AND a.drop_on = n.drop_on AND a.finished_at = n.finished_at
        AND NOT EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = n.queue AND j.id = n.id)
    RETURNING a.*
), back AS (
    INSERT INTO jobwire.live_job (queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
        created_at, start_after, settled_token, started_at, worker, errors, headers, data, key, group_id, tier, dead_letter, origin, checkpoint)
    SELECT queue, id, seq, rank, attempt + 1, CASE WHEN %(anew)s::bool THEN 0 ELSE retry_count END, CASE WHEN %(anew)s::bool THEN 0 ELSE loss_count END, release_count,
        retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
        created_at, CASE WHEN %(anew)s::bool THEN least(start_after, statement_timestamp()) ELSE start_after END, token, started_at, worker, errors, headers, data,
        key, group_id, tier, dead_letter, origin, checkpoint
    FROM gone ORDER BY id
    ON CONFLICT (queue, id) DO NOTHING
    RETURNING id, start_after
), kept AS (
    INSERT INTO jobwire.archive SELECT * FROM gone WHERE id NOT IN (SELECT id FROM back)
)
SELECT id, start_after AS due FROM back ORDER BY id
