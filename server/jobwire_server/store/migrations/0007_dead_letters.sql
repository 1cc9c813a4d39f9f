-- Dead letters: jobs that failed for good on their way to another queue; and what is swept up behind jobs.
--
-- The statement that fails a job writes a row of `dead_letter`; carry_letters() makes a job of it in the other queue, through the entrance that
-- all jobs with keys take, and removes it with the same commit. What that queue does not take stays here, and is tried again.
--
-- Older servers go on beside this: what fails with them has no dead letter.

-- See 0002_max_depth.sql.
SET LOCAL lock_timeout = '1s';

-- Since when a job that comes back waits; null: since its start_after.
ALTER TABLE jobwire.live_job ADD COLUMN waits_since timestamptz;

CREATE TABLE jobwire.dead_letter (
    -- The job that failed, and when.
    queue text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    failed_at timestamptz NOT NULL,
    -- The queue that it goes to, and the id it will have there.
    target text COLLATE "C" NOT NULL,
    letter uuid NOT NULL,
    rank int NOT NULL,
    headers text,
    data text NOT NULL,
    key text COLLATE "C",
    group_id text COLLATE "C",
    tier text COLLATE "C",
    origin jsonb NOT NULL,
    tries int NOT NULL DEFAULT 0,
    retry_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Why it was not taken the last time: an outcome of publish_keyed(), 16 there is no such queue, 17 it has no key and needs one; and the job it met.
    refusal smallint,
    met uuid,
    PRIMARY KEY (queue, id, failed_at)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX dead_letter_due ON jobwire.dead_letter (retry_at);
CREATE INDEX dead_letter_target ON jobwire.dead_letter (target, retry_at);
CREATE INDEX queue_waiting ON jobwire.queue (name) WHERE waiting_ms IS NOT NULL;

-- An id that is always the same for the same thing, and greater for what happened later: a UUID of version 7.
CREATE FUNCTION jobwire.letter_id(queue text, id uuid, failed_at timestamptz) RETURNS uuid
LANGUAGE sql STABLE AS
$$
    SELECT (lpad(to_hex(floor(extract(epoch FROM failed_at) * 1000)::bigint), 12, '0') || '7' || substr(h.hash, 1, 3) || '8' || substr(h.hash, 4, 15))::uuid
    FROM (SELECT md5(queue || ' ' || id || ' ' || extract(epoch FROM failed_at)) AS hash) h
$$;

-- Where a job that fails for good goes, by its own word ('' is nowhere) or its queue's; null: nowhere. Never where it has been already, so that queues that
-- name each other do not pass it on for ever.
CREATE FUNCTION jobwire.letter_target(queue_name text, own text, origin jsonb) RETURNS text
LANGUAGE sql STABLE AS
$$
    SELECT t.target FROM (SELECT coalesce(own, (SELECT q.dead_letter FROM jobwire.queue q WHERE q.name = queue_name)) AS target) t
    WHERE t.target NOT IN ('', queue_name) AND NOT coalesce(origin -> 'path', '[]') @> to_jsonb(t.target)
$$;

-- What a dead letter tells of the job it comes from: `before` is that job's own origin. `path`: the queues where it failed since it was published or redriven.
CREATE FUNCTION jobwire.origin_of(queue text, id uuid, created_at timestamptz, failed_at timestamptz, attempts int, error jsonb, own text, before jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS
$$
    SELECT jsonb_strip_nulls(jsonb_build_object('queue', queue, 'id', id, 'created', created_at, 'failed', failed_at, 'attempts', attempts,
            'dead_letter', own, 'redrives', before -> 'redrives',
            'first', CASE WHEN before IS NOT NULL THEN coalesce(before -> 'first', jsonb_build_object('queue', before -> 'queue', 'id', before -> 'id')) END,
            'path', coalesce(before -> 'path', '[]') || to_jsonb(queue)))
        || CASE WHEN error IS NULL THEN '{}' ELSE jsonb_build_object('error', error) END
$$;

-- Makes jobs of the letters that are due for one queue. Returns that queue (null: none was due), how many it took and refused, and whether its jobs pass gates.
CREATE FUNCTION jobwire.carry_letters(at_most int, hours float8, OUT target text, OUT taken int, OUT refused int, OUT gated boolean)
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    q jobwire.queue;
    d jobwire.dead_letter;
    picked jobwire.dead_letter[] := '{}';
    items jsonb[] := '{}';
    size bigint := 0;
    told record;
BEGIN
    taken := 0;
    refused := 0;
    SELECT l.target INTO target FROM jobwire.dead_letter l WHERE l.retry_at <= clock_timestamp() ORDER BY l.retry_at LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF target IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO q FROM jobwire.queue k WHERE k.name = carry_letters.target FOR KEY SHARE;
    gated := coalesce(q.gated, false);
    FOR d IN
        SELECT l.* FROM jobwire.dead_letter l WHERE l.target = carry_letters.target AND l.retry_at <= clock_timestamp()
        ORDER BY l.retry_at LIMIT at_most FOR UPDATE SKIP LOCKED
    LOOP
        IF q.name IS NULL OR (q.policy = 5 AND d.key IS NULL) THEN
            UPDATE jobwire.dead_letter l SET tries = l.tries + 1, retry_at = jobwire.letter_retry(l.tries), refusal = CASE WHEN q.name IS NULL THEN 16 ELSE 17 END, met = NULL
            WHERE l.queue = d.queue AND l.id = d.id AND l.failed_at = d.failed_at;
            refused := refused + 1;
            CONTINUE;
        END IF;
        EXIT WHEN size > 2000000;
        size := size + octet_length(d.data);
        picked := array_append(picked, d);
        items := array_append(items, jsonb_build_object('id', d.letter, 'given', true, 'data', d.data, 'headers', d.headers, 'rank', d.rank,
            'retry_limit', q.retry_limit, 'retry_delay_ms', q.retry_delay_ms, 'retry_backoff', q.retry_backoff, 'retry_delay_max_ms', q.retry_delay_max_ms,
            'expire_ms', q.expire_ms, 'retention_ms', q.retention_ms, 'key', d.key, 'group', d.group_id, 'tier', d.tier));
    END LOOP;
    FOR told IN SELECT p.n, p.outcome, p.met FROM jobwire.publish_keyed(target, to_jsonb(items), hours) p LOOP
        d := picked[told.n];
        IF told.outcome > 1 THEN
            UPDATE jobwire.dead_letter l SET tries = l.tries + 1, retry_at = jobwire.letter_retry(l.tries), refusal = told.outcome, met = told.met
            WHERE l.queue = d.queue AND l.id = d.id AND l.failed_at = d.failed_at;
            refused := refused + 1;
            CONTINUE;
        END IF;
        UPDATE jobwire.live_job j SET origin = d.origin WHERE j.queue = carry_letters.target AND j.id = d.letter AND told.outcome = 0;
        DELETE FROM jobwire.dead_letter l WHERE l.queue = d.queue AND l.id = d.id AND l.failed_at = d.failed_at;
        taken := taken + 1;
    END LOOP;
END
$$;

-- When a letter that was not taken is tried again: after pauses that double up to a minute.
CREATE FUNCTION jobwire.letter_retry(tries int) RETURNS timestamptz
LANGUAGE sql VOLATILE AS
$$ SELECT clock_timestamp() + least(2 ^ least(tries, 6), 60) * interval '1 second' $$;

-- Removes guards that keep nobody away any more, looking at so many after a place; returns the place up to which it looked (null: to the end) and how many went.
-- Each is locked before it is looked whether it holds, so that what was published meanwhile is seen.
CREATE FUNCTION jobwire.sweep_guards(after_queue text, after_kind smallint, after_key text, at_most int, OUT queue text, OUT kind smallint, OUT key text, OUT gone int)
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    g jobwire.guard;
    q jobwire.queue;
    seen int := 0;
BEGIN
    gone := 0;
    FOR g IN
        SELECT w.* FROM jobwire.guard w WHERE (w.queue, w.kind, w.key) > (after_queue, after_kind, after_key)
        ORDER BY w.queue, w.kind, w.key LIMIT at_most
    LOOP
        seen := seen + 1;
        queue := g.queue;
        kind := g.kind;
        key := g.key;
        SELECT w.* INTO g FROM jobwire.guard w WHERE w.queue = g.queue AND w.kind = g.kind AND w.key = g.key FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        IF g.kind = 1 THEN
            CONTINUE WHEN EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = g.queue AND j.id = g.id);
        ELSE
            CONTINUE WHEN g.until > clock_timestamp();
        END IF;
        DELETE FROM jobwire.guard w WHERE w.queue = g.queue AND w.kind = g.kind AND w.key = g.key;
        gone := gone + 1;
    END LOOP;
    IF seen < at_most THEN
        queue := NULL;
    END IF;
END
$$;

-- Removes the turns of a queue that has no jobs now: what it needs to know is which turn was reached. Not before, since the groups' numbers are part of their jobs' places and are given
-- anew then. Leaves a queue alone that is being looked after; returns how many went.
CREATE FUNCTION jobwire.sweep_turns(queue_name text, at_most int) RETURNS int
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    gone int := 0;
BEGIN
    PERFORM FROM jobwire.queue k WHERE k.name = queue_name FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    IF EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = queue_name) THEN
        RETURN 0;
    END IF;
    UPDATE jobwire.turn_reached r SET turn = (SELECT max(t.turn) FROM jobwire.turn t WHERE t.queue = queue_name)
    WHERE r.queue = queue_name AND r.turn < (SELECT max(t.turn) FROM jobwire.turn t WHERE t.queue = queue_name);
    WITH swept AS (
        DELETE FROM jobwire.turn t WHERE t.ctid = ANY (ARRAY(
            SELECT o.ctid FROM jobwire.turn o WHERE o.queue = queue_name LIMIT at_most))
        RETURNING 1
    )
    SELECT count(*) INTO gone FROM swept;
    RETURN gone;
END
$$;

-- Has the gates see to slots whose jobs are not live, and of whose end nothing told: an older server beside does not. Looks at so many after a place; returns the place up to which it
-- looked (null: to the end), and how many it found.
CREATE FUNCTION jobwire.sweep_slots(queue_name text, after uuid, at_most int, OUT id uuid, OUT events int)
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    looked uuid[];
BEGIN
    events := 0;
    PERFORM FROM jobwire.queue k WHERE k.name = queue_name FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT array_agg(l.id ORDER BY l.id) INTO looked
    FROM (SELECT DISTINCT s.id FROM jobwire.slot s WHERE s.queue = queue_name AND s.id > after ORDER BY s.id LIMIT at_most) l;
    WITH told AS (
        INSERT INTO jobwire.gate_event (queue, id, kind)
        SELECT queue_name, s.id, CASE WHEN q.policy = 5 AND EXISTS (SELECT FROM jobwire.archive a WHERE a.queue = queue_name AND a.id = s.id AND a.state = 6) THEN 3 ELSE 2 END
        FROM unnest(looked) AS s (id) CROSS JOIN jobwire.queue q
        WHERE q.name = queue_name AND NOT EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = queue_name AND j.id = s.id)
            AND NOT EXISTS (SELECT FROM jobwire.gate_event e WHERE e.queue = queue_name AND e.id = s.id)
            AND NOT EXISTS (SELECT FROM jobwire.slot f WHERE f.queue = queue_name AND f.id = s.id AND f.failed)
        RETURNING 1
    )
    SELECT count(*) INTO events FROM told;
    IF cardinality(looked) = at_most THEN
        id := looked[at_most];
    END IF;
END
$$;

-- Takes the dead letter of a job back if nobody has begun with it: it is on its way, or waits in its queue. Returns whether it could.
CREATE FUNCTION jobwire.withdraw_letter(from_queue text, job_id uuid, at timestamptz, to_queue text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    letter_id uuid := jobwire.letter_id(from_queue, job_id, at);
    j record;
BEGIN
    DELETE FROM jobwire.dead_letter d WHERE d.queue = from_queue AND d.id = job_id AND d.failed_at = at;
    IF FOUND THEN
        RETURN true;
    END IF;
    SELECT l.rank, l.seq, l.attempt, l.gated INTO j FROM jobwire.live_job l WHERE l.queue = to_queue AND l.id = letter_id FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR j.attempt > 1 THEN
        RETURN false;
    END IF;
    WITH taken AS (
        DELETE FROM jobwire.ready r WHERE r.queue = to_queue AND r.rank = j.rank AND r.seq = j.seq RETURNING 1
    ), appointment AS (
        DELETE FROM jobwire.scheduled s WHERE s.queue = to_queue AND s.seq = j.seq RETURNING 1
    ), blocked AS (
        DELETE FROM jobwire.blocked b WHERE b.queue = to_queue AND b.id = letter_id RETURNING 1
    ), event AS (
        DELETE FROM jobwire.gate_event e WHERE e.queue = to_queue AND e.id = letter_id AND e.kind = 1 RETURNING 1
    ), waiting AS (
        SELECT FROM taken UNION ALL SELECT FROM appointment UNION ALL SELECT FROM blocked UNION ALL SELECT FROM event
    )
    DELETE FROM jobwire.live_job l WHERE l.queue = to_queue AND l.id = letter_id AND EXISTS (SELECT FROM waiting);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO jobwire.gate_event (queue, id, kind) SELECT to_queue, letter_id, 2 WHERE j.gated;
    RETURN true;
END
$$;
