-- Moves the time limit of deliveries of one queue whose lease is valid, and notes their progress and what they leave for the next attempt ('': nothing). The input is in the order of the ids, and so are the locks. Live rows are looked up as in `complete`.
-- A delivery that was told to stop keeps its limit. Returns why it is to stop, if so, and what is left of the time.
WITH input AS MATERIALIZED (
    SELECT %(queue)s::text COLLATE "C" AS queue, i.* FROM jsonb_to_recordset(%(items)s::jsonb) AS i (id uuid, token uuid, place int, expire_ms bigint, progress jsonb, checkpoint text)
), lease AS MATERIALIZED (
    SELECT i.*, c.attempts[i.place] AS attempt, c.claimed_at
    FROM input i
    CROSS JOIN LATERAL (SELECT k.* FROM jobwire.claim k WHERE k.queue = i.queue AND k.token = i.token AND k.ids[i.place] = i.id OFFSET 0) c
), moved AS (
    UPDATE jobwire.live_job j SET
        expires_at = CASE WHEN j.stop_reason IS NULL AND l.expire_ms IS NOT NULL THEN clock_timestamp() + l.expire_ms * interval '1 millisecond' ELSE j.expires_at END,
        progress = coalesce(l.progress, j.progress),
        progress_count = j.progress_count + (l.progress IS NOT NULL)::int,
        checkpoint = CASE WHEN l.checkpoint IS NULL THEN j.checkpoint ELSE nullif(l.checkpoint, '') END
    FROM lease l WHERE j.queue = ANY (ARRAY[l.queue]) AND j.id >= l.id AND j.id <= l.id AND j.attempt = l.attempt
    RETURNING j.queue, j.id, j.stop_reason, l.token, coalesce(j.stop_at, j.expires_at, l.claimed_at + j.expire_ms * interval '1 millisecond') AS ends_at
), sooner AS (
    UPDATE jobwire.claim c SET check_at = m.ends_at FROM (SELECT queue, token, min(ends_at) AS ends_at FROM moved GROUP BY queue, token) m
    WHERE c.queue = m.queue AND c.token = m.token AND c.check_at > m.ends_at
)
SELECT id, token, stop_reason, greatest(0, extract(epoch FROM ends_at - clock_timestamp()) * 1000)::bigint AS expires_in_ms FROM moved
