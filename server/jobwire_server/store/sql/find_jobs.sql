-- Looks at the next jobs of one queue by descending id, at most `window` live and `window` finished ones, and returns those that match, at most `limit` of each
-- kind, in that order, with the id up to which each kind was looked at (null: to its end) and how many jobs that were.
-- What reads by index decides what is looked at (queue, id, key, whether active, whether completed); the rest is looked at in each row. Conditions that are not
-- given are gone from the plan, which is made for these parameters. Nothing here locks; who acts on what was found looks again.
WITH live_window AS MATERIALIZED (
    SELECT j.id FROM jobwire.live_job j
    WHERE %(live)s::bool AND j.queue = %(queue)s AND (%(before)s::uuid IS NULL OR j.id < %(before)s::uuid) AND (%(key)s::text IS NULL OR j.key = %(key)s::text)
        AND (NOT %(active_only)s::bool OR j.id = ANY (ARRAY(SELECT unnest(c.ids) FROM jobwire.claim c WHERE c.queue = %(queue)s)))
        AND (NOT %(blocked_only)s::bool OR j.id = ANY (ARRAY(SELECT b.id FROM jobwire.blocked b WHERE b.queue = %(queue)s)))
    ORDER BY j.id DESC LIMIT %(window)s
), old_window AS MATERIALIZED (
    SELECT a.id FROM jobwire.archive a
    WHERE %(finished)s::bool AND a.queue = %(queue)s AND (%(before)s::uuid IS NULL OR a.id < %(before)s::uuid) AND (%(key)s::text IS NULL OR a.key = %(key)s::text)
        AND (NOT %(incomplete_only)s::bool OR a.state <> 4)
    ORDER BY a.id DESC LIMIT %(window)s
), live AS MATERIALIZED (
    SELECT j.id, j.state FROM (
        SELECT j.*, t.state FROM (
            SELECT j.* FROM jobwire.live_job j
            WHERE %(live)s::bool AND j.queue = %(queue)s AND (%(before)s::uuid IS NULL OR j.id < %(before)s::uuid) AND (%(key)s::text IS NULL OR j.key = %(key)s::text)
                AND (NOT %(active_only)s::bool OR j.id = ANY (ARRAY(SELECT unnest(c.ids) FROM jobwire.claim c WHERE c.queue = %(queue)s)))
                AND (NOT %(blocked_only)s::bool OR j.id = ANY (ARRAY(SELECT b.id FROM jobwire.blocked b WHERE b.queue = %(queue)s)))
            ORDER BY j.id DESC LIMIT %(window)s
        ) j CROSS JOIN LATERAL (
            SELECT CASE WHEN j.gated AND EXISTS (SELECT FROM jobwire.blocked b WHERE b.queue = j.queue AND b.id = j.id) THEN 7
                WHEN EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq)
                    OR EXISTS (SELECT FROM jobwire.scheduled s WHERE s.queue = j.queue AND s.seq = j.seq)
                    OR j.gated AND EXISTS (SELECT FROM jobwire.gate_event e WHERE e.queue = j.queue AND e.id = j.id AND e.kind = 1)
                THEN CASE WHEN j.attempt = 1 THEN 1 ELSE 2 END ELSE 3 END AS state
        ) t
    ) j
    WHERE (%(group)s::text IS NULL OR j.group_id = %(group)s::text)
        AND (%(created_from)s::timestamptz IS NULL OR j.created_at >= %(created_from)s::timestamptz) AND (%(created_before)s::timestamptz IS NULL OR j.created_at < %(created_before)s::timestamptz)
        AND (%(rank_from)s::int4 IS NULL OR j.rank >= %(rank_from)s::int4) AND (%(rank_to)s::int4 IS NULL OR j.rank <= %(rank_to)s::int4)
        AND (%(worker)s::text IS NULL OR j.worker = %(worker)s::text
            OR (j.id, j.attempt) IN (SELECT m.id, m.attempt FROM jobwire.claim c CROSS JOIN LATERAL unnest(c.ids, c.attempts) AS m (id, attempt) WHERE c.queue = %(queue)s AND c.worker = %(worker)s::text))
        AND (%(error_type)s::text IS NULL AND %(error_text)s::text IS NULL OR EXISTS (SELECT FROM jsonb_array_elements(j.errors) e
            WHERE (%(error_type)s::text IS NULL OR e ->> 'type' = %(error_type)s::text) AND (%(error_text)s::text IS NULL OR position(lower(%(error_text)s::text) IN lower(e ->> 'message')) > 0)))
        AND (%(contains)s::text IS NULL OR j.data::jsonb @> %(contains)s::text::jsonb)
        AND (%(any_live)s::bool OR j.state = ANY (%(states)b::int4[]))
    ORDER BY j.id DESC LIMIT %(limit)s
), old AS MATERIALIZED (
    SELECT a.id, a.state FROM (
        SELECT a.* FROM jobwire.archive a
        WHERE %(finished)s::bool AND a.queue = %(queue)s AND (%(before)s::uuid IS NULL OR a.id < %(before)s::uuid) AND (%(key)s::text IS NULL OR a.key = %(key)s::text)
            AND (NOT %(incomplete_only)s::bool OR a.state <> 4)
        ORDER BY a.id DESC LIMIT %(window)s
    ) a
    WHERE (%(group)s::text IS NULL OR a.group_id = %(group)s::text)
        AND (%(created_from)s::timestamptz IS NULL OR a.created_at >= %(created_from)s::timestamptz) AND (%(created_before)s::timestamptz IS NULL OR a.created_at < %(created_before)s::timestamptz)
        AND (%(finished_from)s::timestamptz IS NULL OR a.finished_at >= %(finished_from)s::timestamptz) AND (%(finished_before)s::timestamptz IS NULL OR a.finished_at < %(finished_before)s::timestamptz)
        AND (%(rank_from)s::int4 IS NULL OR a.rank >= %(rank_from)s::int4) AND (%(rank_to)s::int4 IS NULL OR a.rank <= %(rank_to)s::int4)
        AND (%(worker)s::text IS NULL OR a.worker = %(worker)s::text)
        AND (%(error_type)s::text IS NULL AND %(error_text)s::text IS NULL OR EXISTS (SELECT FROM jsonb_array_elements(a.errors) e
            WHERE (%(error_type)s::text IS NULL OR e ->> 'type' = %(error_type)s::text) AND (%(error_text)s::text IS NULL OR position(lower(%(error_text)s::text) IN lower(e ->> 'message')) > 0)))
        AND (%(contains)s::text IS NULL OR a.data::jsonb @> %(contains)s::text::jsonb)
        AND a.state = ANY (%(states)b::int4[])
    ORDER BY a.id DESC LIMIT %(limit)s
), found AS MATERIALIZED (
    SELECT ARRAY(SELECT id FROM live) AS live_ids, ARRAY(SELECT state FROM live)::int4[] AS live_states, ARRAY(SELECT id FROM old) AS old_ids, ARRAY(SELECT state FROM old)::int4[] AS old_states
)
SELECT live_ids, live_states, old_ids, old_states,
    CASE WHEN cardinality(live_ids) >= %(limit)s THEN live_ids[%(limit)s] ELSE (SELECT id FROM live_window OFFSET %(window)s - 1) END AS live_end,
    CASE WHEN cardinality(old_ids) >= %(limit)s THEN old_ids[%(limit)s] ELSE (SELECT id FROM old_window OFFSET %(window)s - 1) END AS old_end,
    CASE WHEN cardinality(live_ids) >= %(limit)s THEN cardinality(live_ids) ELSE (SELECT count(*) FROM live_window) END
        + CASE WHEN cardinality(old_ids) >= %(limit)s THEN cardinality(old_ids) ELSE (SELECT count(*) FROM old_window) END AS looked_at
FROM found
