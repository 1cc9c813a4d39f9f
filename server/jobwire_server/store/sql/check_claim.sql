-- Looks at the deliveries of one claim: those past their time limit are told to stop and keep their lease for the stop grace; those past that are returned for settling.
-- The claim is looked at again when the next limit is over. Row locks in the order of the ids. Live rows are looked up as in `complete`.
WITH member AS MATERIALIZED (
    SELECT c.queue, m.id, m.attempt, m.place, c.claimed_at, c.session_id
    FROM jobwire.claim c CROSS JOIN LATERAL unnest(c.ids, c.attempts) WITH ORDINALITY AS m (id, attempt, place)
    WHERE c.queue = %(queue)s AND c.token = %(token)s
    ORDER BY m.id
), locked AS MATERIALIZED (
    SELECT j.queue, j.id, m.place, m.session_id, j.stop_reason, j.stop_at, coalesce(j.expires_at, m.claimed_at + j.expire_ms * interval '1 millisecond') AS ends_at
    FROM member m CROSS JOIN LATERAL (
        SELECT k.* FROM jobwire.live_job k WHERE k.queue = m.queue AND k.id = m.id AND k.attempt = m.attempt FOR UPDATE
    ) j
), judged AS MATERIALIZED (
    SELECT l.*, stop_reason IS NULL AND ends_at <= clock_timestamp() AS expired, stop_at <= clock_timestamp() AS over FROM locked l
), told AS (
    UPDATE jobwire.live_job j SET stop_reason = 2, stop_at = clock_timestamp() + %(cancel_grace_ms)s * interval '1 millisecond'
    FROM judged v WHERE v.expired AND j.queue = ANY (ARRAY[v.queue]) AND j.id >= v.id AND j.id <= v.id
), next_look AS (
    UPDATE jobwire.claim c SET check_at = coalesce((
            SELECT min(CASE WHEN expired THEN clock_timestamp() + %(cancel_grace_ms)s * interval '1 millisecond' WHEN stop_reason IS NOT NULL THEN stop_at ELSE ends_at END) FROM judged WHERE over IS NOT TRUE),
        'infinity')
    WHERE c.queue = %(queue)s AND c.token = %(token)s
)
SELECT id, place, session_id, expired, over FROM judged WHERE expired OR over ORDER BY id
