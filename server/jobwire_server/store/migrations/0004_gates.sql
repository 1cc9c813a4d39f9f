-- Keys, groups, policies and limits: jobs that wait for something other than time.
--
-- A *gate* lets so many jobs of one kind be ready or active at once: one of each key where the queue's policy says so, so many of each
-- group where the queue limits groups. A job that is through all its gates holds a *slot* of each and has a ticket in `ready`; before, it has
-- one in `blocked`, at the gate where it waits. Only admit() hands slots out and takes them back, under the lock of the queue's row:
-- whatever begins or ends a job's stay writes a row of `gate_event` in its own transaction and waits for nobody.
--
-- Queues without policy, limits and fairness have none of these rows. Older servers go on beside this; what they do to jobs of gated queues
-- is put right by the sweep of slots.

-- See 0002_max_depth.sql.
SET LOCAL lock_timeout = '1s';

ALTER TABLE jobwire.queue
    -- The number of domain.queues.Policy: 0 standard, 1 short, 2 singleton, 3 stately, 4 exclusive, 5 key_strict_fifo.
    ADD COLUMN policy smallint NOT NULL DEFAULT 0 CHECK (policy BETWEEN 0 AND 5),
    -- How many of its jobs may be active at once, and how many may start within a period. Null: any number.
    ADD COLUMN max_active int CHECK (max_active > 0),
    ADD COLUMN rate_starts int CHECK (rate_starts > 0),
    ADD COLUMN rate_ms bigint CHECK (rate_ms > 0),
    -- The same for the jobs of each group; `group_tiers` says it for groups of a tier, {"tier": jobs}.
    ADD COLUMN group_limit int CHECK (group_limit > 0),
    ADD COLUMN group_tiers jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN group_rate_starts int CHECK (group_rate_starts > 0),
    ADD COLUMN group_rate_ms bigint CHECK (group_rate_ms > 0),
    -- Whether groups take turns.
    ADD COLUMN fair boolean NOT NULL DEFAULT false,
    ADD COLUMN paused boolean NOT NULL DEFAULT false,
    -- Where a job that failed for good goes as a new job, unless it says otherwise itself.
    ADD COLUMN dead_letter text COLLATE "C",
    -- For how long a job may wait before it is cancelled. Null: forever.
    ADD COLUMN waiting_ms bigint CHECK (waiting_ms > 0),
    -- Whether its jobs pass gates before they are ready.
    ADD COLUMN gated boolean NOT NULL GENERATED ALWAYS AS
        (policy IN (2, 3, 5) OR fair OR group_limit IS NOT NULL OR group_tiers <> '{}' OR group_rate_starts IS NOT NULL) STORED,
    -- Whether publishing looks at keys: then it is `publish_keyed`.
    ADD COLUMN guarded boolean NOT NULL GENERATED ALWAYS AS
        (policy > 0 OR fair OR group_limit IS NOT NULL OR group_tiers <> '{}' OR group_rate_starts IS NOT NULL) STORED,
    -- How its jobs are claimed: 0 plainly, 1 under the lock of this row, as far as the limits allow, 2 not at all.
    ADD COLUMN claim_kind smallint NOT NULL GENERATED ALWAYS AS
        (CASE WHEN paused THEN 2 WHEN max_active IS NOT NULL OR rate_starts IS NOT NULL OR group_rate_starts IS NOT NULL THEN 1 ELSE 0 END) STORED;

ALTER TABLE jobwire.live_job
    ADD COLUMN key text COLLATE "C",
    ADD COLUMN group_id text COLLATE "C",
    ADD COLUMN tier text COLLATE "C",
    ADD COLUMN dead_letter text COLLATE "C",
    -- Of a dead letter, where it comes from.
    ADD COLUMN origin jsonb,
    -- What the last run left for the next: JSON text.
    ADD COLUMN checkpoint text,
    -- True: it passes gates, so that whatever ends its stay there writes a `gate_event`.
    ADD COLUMN gated boolean;

ALTER TABLE jobwire.archive
    ADD COLUMN key text COLLATE "C",
    ADD COLUMN group_id text COLLATE "C",
    ADD COLUMN tier text COLLATE "C",
    ADD COLUMN dead_letter text COLLATE "C",
    ADD COLUMN origin jsonb,
    ADD COLUMN checkpoint text;

-- True: it goes to the gates when its time has come.
ALTER TABLE jobwire.scheduled ADD COLUMN gated boolean NOT NULL DEFAULT false;

-- What befell jobs of gated queues, in order, until admit() has seen to it: 1 it comes to the gates, 2 it left, 3 it failed for good, 4 it waits for a time.
CREATE TABLE jobwire.gate_event (
    queue text COLLATE "C" NOT NULL,
    n bigint GENERATED ALWAYS AS IDENTITY,
    id uuid NOT NULL,
    kind smallint NOT NULL,
    suspect boolean NOT NULL DEFAULT false,
    PRIMARY KEY (queue, n)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX gate_event_job ON jobwire.gate_event (queue, id);

-- A ticket for each job that waits at a gate: 'k' and the key, or 'g' and the group.
CREATE TABLE jobwire.blocked (
    queue text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    gate text COLLATE "C" NOT NULL,
    -- 0 where a key's order is strict.
    rank int NOT NULL,
    seq bigint NOT NULL,
    suspect boolean NOT NULL,
    PRIMARY KEY (queue, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX blocked_gate ON jobwire.blocked (queue, gate, rank, seq);

CREATE TABLE jobwire.slot (
    queue text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    gate text COLLATE "C" NOT NULL,
    rank int NOT NULL,
    seq bigint NOT NULL,
    -- Where groups have a rate: whether this stay's start is counted.
    started boolean NOT NULL DEFAULT false,
    -- The job failed, and holds up its key until somebody decides.
    failed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (queue, id, gate)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX slot_gate ON jobwire.slot (queue, gate, rank, seq);
CREATE INDEX slot_failed ON jobwire.slot (queue, gate) WHERE failed;

-- The starts of a queue ('') or of a group's gate within its rate's period, counted in parts of a 64th of it, by the parts' beginnings.
CREATE TABLE jobwire.rate (
    queue text COLLATE "C" NOT NULL,
    gate text COLLATE "C" NOT NULL,
    times timestamptz[] NOT NULL DEFAULT '{}',
    counts int[] NOT NULL DEFAULT '{}',
    -- When admit() is to look at the gate again; null: at the next event.
    open_at timestamptz,
    PRIMARY KEY (queue, gate)
) WITH (fillfactor = 50);

CREATE INDEX rate_open ON jobwire.rate (open_at) WHERE open_at IS NOT NULL;

-- Where groups take turns: the turn of the last job of each, and its number among all of the queue, which decides within a turn.
CREATE TABLE jobwire.turn (
    queue text COLLATE "C" NOT NULL,
    rank int NOT NULL,
    group_id text COLLATE "C" NOT NULL,
    no int NOT NULL,
    turn bigint NOT NULL,
    PRIMARY KEY (queue, rank, group_id)
) WITH (fillfactor = 50);

-- The turn that is being claimed, as far as it has been seen: it only rises, whatever comes back at an old place.
CREATE TABLE jobwire.turn_reached (
    queue text COLLATE "C" NOT NULL,
    rank int NOT NULL,
    turn bigint NOT NULL,
    PRIMARY KEY (queue, rank)
) WITH (fillfactor = 50);

CREATE INDEX turn_no ON jobwire.turn (queue, no);
CREATE INDEX turn_last ON jobwire.turn (queue, rank, turn);

-- Which job stands in the way of others of its key at Publish: 1 as the policy says, as long as it waits for its first run (short, stately) or
-- lives (exclusive); 2 for a slot of time; 3 for a period. Nothing that ends a job touches these: whoever meets one looks whether it still holds.
CREATE TABLE jobwire.guard (
    queue text COLLATE "C" NOT NULL,
    kind smallint NOT NULL,
    key text COLLATE "C" NOT NULL,
    -- Null: nobody's yet.
    id uuid,
    -- Of a slot of time, its beginning and its end; of a period, its end.
    since timestamptz,
    until timestamptz,
    PRIMARY KEY (queue, kind, key)
) WITH (fillfactor = 70);

CREATE INDEX guard_until ON jobwire.guard (until);

CREATE INDEX queue_gated ON jobwire.queue (name) WHERE gated;
CREATE INDEX live_job_key ON jobwire.live_job (queue, key) WHERE key IS NOT NULL;
CREATE INDEX live_job_group ON jobwire.live_job (queue, group_id) WHERE group_id IS NOT NULL;
-- Only the days made from now on have jobs with keys.
CREATE INDEX archive_key ON ONLY jobwire.archive (queue, key) WHERE key IS NOT NULL;

-- The gates that a job passes, in order.
CREATE FUNCTION jobwire.gates_of(q jobwire.queue, key text, group_id text) RETURNS text[]
LANGUAGE sql STABLE AS
$$
    SELECT CASE WHEN q.policy IN (2, 3, 5) THEN ARRAY['k' || coalesce(key, '')] ELSE '{}' END
        || CASE WHEN group_id IS NOT NULL AND (q.group_limit IS NOT NULL OR q.group_tiers <> '{}' OR q.group_rate_starts IS NOT NULL) THEN ARRAY['g' || group_id] ELSE '{}' END
$$;

-- How long a start counts: the period, and the part in which it may have begun.
CREATE FUNCTION jobwire.rate_memory(period_ms bigint) RETURNS interval
LANGUAGE sql IMMUTABLE AS
$$ SELECT period_ms * interval '1 millisecond' * 65 / 64 $$;

-- The starts within the period that ends now, and when the first of them will not count any more.
CREATE FUNCTION jobwire.starts_of(queue text, gate text, period_ms bigint, OUT starts bigint, OUT first_leaves_at timestamptz)
LANGUAGE sql VOLATILE AS
$$
    SELECT coalesce(sum(u.starts), 0), min(u.at) + jobwire.rate_memory(period_ms)
    FROM jobwire.rate r CROSS JOIN LATERAL unnest(r.times, r.counts) AS u (at, starts)
    WHERE r.queue = starts_of.queue AND r.gate = starts_of.gate AND u.at + jobwire.rate_memory(period_ms) > clock_timestamp()
$$;

-- Counts starts, under the lock of the queue's row. `opens`: has admit() look at the gate when the first of them does not count any more.
CREATE FUNCTION jobwire.count_starts(queue text, gate text, period_ms bigint, starts int, opens boolean) RETURNS void
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    now_at timestamptz := clock_timestamp();
    kept_times timestamptz[];
    kept_counts int[];
BEGIN
    SELECT array_agg(u.at ORDER BY u.at), array_agg(u.starts ORDER BY u.at) INTO kept_times, kept_counts
    FROM jobwire.rate r CROSS JOIN LATERAL unnest(r.times, r.counts) AS u (at, starts)
    WHERE r.queue = count_starts.queue AND r.gate = count_starts.gate AND u.at + jobwire.rate_memory(period_ms) > now_at;
    IF kept_times[cardinality(kept_times)] > now_at - period_ms * interval '1 millisecond' / 64 THEN
        kept_counts[cardinality(kept_counts)] := kept_counts[cardinality(kept_counts)] + starts;
    ELSE
        kept_times := coalesce(kept_times, '{}') || now_at;
        kept_counts := coalesce(kept_counts, '{}') || starts;
    END IF;
    INSERT INTO jobwire.rate AS r (queue, gate, times, counts, open_at)
    VALUES (count_starts.queue, count_starts.gate, kept_times, kept_counts, CASE WHEN opens THEN kept_times[1] + jobwire.rate_memory(period_ms) END)
    ON CONFLICT ON CONSTRAINT rate_pkey DO UPDATE SET times = excluded.times, counts = excluded.counts, open_at = excluded.open_at;
END
$$;

-- How many more jobs a gate lets through now.
CREATE FUNCTION jobwire.gate_room(q jobwire.queue, gate text, tier text) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    most int := CASE WHEN gate LIKE 'k%' THEN 1 ELSE coalesce((q.group_tiers ->> tier)::int, q.group_limit) END;
    room bigint := 1000000000;
    counted record;
    waiting bigint;
BEGIN
    IF most IS NOT NULL THEN
        room := most - (SELECT count(*) FROM (SELECT FROM jobwire.slot s WHERE s.queue = q.name AND s.gate = gate_room.gate LIMIT most) held);
    END IF;
    IF room > 0 AND gate LIKE 'g%' AND q.group_rate_starts IS NOT NULL THEN
        -- Those that are through and have not started will count as well.
        SELECT count(*) INTO waiting FROM jobwire.slot s WHERE s.queue = q.name AND s.gate = gate_room.gate AND NOT s.started;
        SELECT * INTO counted FROM jobwire.starts_of(q.name, gate, q.group_rate_ms);
        room := least(room, q.group_rate_starts - counted.starts - waiting);
        IF room <= 0 AND counted.first_leaves_at IS NOT NULL THEN
            UPDATE jobwire.rate r SET open_at = counted.first_leaves_at WHERE r.queue = q.name AND r.gate = gate_room.gate;
        END IF;
    END IF;
    RETURN room;
END
$$;

-- Lets a job go on after the gates it holds slots of: to the next one, where it waits for its turn, or to a ticket. Returns the gate where it waits.
CREATE FUNCTION jobwire.go_on(q jobwire.queue, job_id uuid, job_suspect boolean) RETURNS text
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    j record;
    g text;
BEGIN
    SELECT l.rank, l.seq, l.attempt, l.key, l.group_id, l.start_after INTO j FROM jobwire.live_job l WHERE l.queue = q.name AND l.id = job_id;
    FOREACH g IN ARRAY jobwire.gates_of(q, j.key, j.group_id) LOOP
        IF NOT EXISTS (SELECT FROM jobwire.slot s WHERE s.queue = q.name AND s.id = job_id AND s.gate = g) THEN
            INSERT INTO jobwire.blocked (queue, id, gate, rank, seq, suspect)
            VALUES (q.name, job_id, g, CASE WHEN q.policy = 5 AND g LIKE 'k%' THEN 0 ELSE j.rank END, j.seq, job_suspect);
            RETURN g;
        END IF;
    END LOOP;
    -- A time to come is waited for before the gates, but not where a key's order is strict: there the job holds up those behind it.
    IF j.start_after > clock_timestamp() THEN
        INSERT INTO jobwire.scheduled (queue, rank, seq, id, suspect, start_after) VALUES (q.name, j.rank, j.seq, job_id, job_suspect, j.start_after);
        RETURN NULL;
    END IF;
    -- What comes back keeps its place.
    IF q.fair AND j.attempt = 1 THEN
        UPDATE jobwire.live_job l SET seq = jobwire.take_turn(q, j.rank, coalesce(j.group_id, '')) WHERE l.queue = q.name AND l.id = job_id RETURNING l.seq INTO j.seq;
    END IF;
    INSERT INTO jobwire.ready (queue, rank, seq, id, suspect) VALUES (q.name, j.rank, j.seq, job_id, job_suspect);
    RETURN NULL;
END
$$;

-- Takes a slot of a gate back from the last of those that hold one behind the given place and have not been claimed; it waits at the gate again.
-- Returns the later gates whose slots it held as well, or null if there is none.
CREATE FUNCTION jobwire.step_back(q jobwire.queue, gate text, before_rank int, before_seq bigint) RETURNS text[]
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    held record;
    job_suspect boolean;
    given_up text[];
BEGIN
    FOR held IN
        SELECT s.id, s.rank, s.seq, j.rank AS job_rank, j.seq AS job_seq, j.key, j.group_id
        FROM jobwire.slot s JOIN jobwire.live_job j ON j.queue = s.queue AND j.id = s.id
        WHERE s.queue = q.name AND s.gate = step_back.gate AND NOT s.failed AND (s.rank, s.seq) > (before_rank, before_seq)
        ORDER BY s.rank DESC, s.seq DESC
    LOOP
        DELETE FROM jobwire.ready r WHERE r.ctid = ANY (ARRAY(
            SELECT t.ctid FROM jobwire.ready t WHERE t.queue = q.name AND t.rank = held.job_rank AND t.seq = held.job_seq FOR UPDATE SKIP LOCKED))
        RETURNING r.suspect INTO job_suspect;
        IF NOT FOUND THEN
            DELETE FROM jobwire.blocked b WHERE b.ctid = ANY (ARRAY(
                SELECT t.ctid FROM jobwire.blocked t WHERE t.queue = q.name AND t.id = held.id FOR UPDATE SKIP LOCKED))
            RETURNING b.suspect INTO job_suspect;
            CONTINUE WHEN NOT FOUND;
        END IF;
        WITH gone AS (
            DELETE FROM jobwire.slot s WHERE s.queue = q.name AND s.id = held.id
                AND s.gate = ANY ((jobwire.gates_of(q, held.key, held.group_id))[array_position(jobwire.gates_of(q, held.key, held.group_id), step_back.gate):])
            RETURNING s.gate
        )
        SELECT coalesce(array_agg(g.gate), '{}') INTO given_up FROM gone g WHERE g.gate <> step_back.gate;
        INSERT INTO jobwire.blocked (queue, id, gate, rank, seq, suspect) VALUES (q.name, held.id, step_back.gate, held.rank, held.seq, job_suspect);
        RETURN given_up;
    END LOOP;
    RETURN NULL;
END
$$;

-- The first place in the claim order that is a turn's. Below it are the numbers of `job_seq`: no two jobs of a queue ever have the same.
CREATE FUNCTION jobwire.first_turn() RETURNS bigint
LANGUAGE sql IMMUTABLE AS
$$ SELECT 1::bigint << 62 $$;

-- Where groups take turns: the place of a job that just came, as a number in the claim order: first_turn() + turn * 2^24 + the group's number. A group whose turns
-- are behind begins with the turn that is next to be claimed: start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996), each job of the same weight.
CREATE FUNCTION jobwire.take_turn(q jobwire.queue, job_rank int, job_group text) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    next_turn bigint;
    reached bigint;
    place record;
BEGIN
    SELECT ((r.seq - jobwire.first_turn()) >> 24) - 1 INTO next_turn
    FROM jobwire.ready r WHERE r.queue = q.name AND r.rank = job_rank AND r.seq >= jobwire.first_turn() ORDER BY r.seq LIMIT 1;
    IF NOT FOUND THEN
        SELECT max(t.turn) INTO next_turn FROM jobwire.turn t WHERE t.queue = q.name AND t.rank = job_rank;
    END IF;
    INSERT INTO jobwire.turn_reached AS t (queue, rank, turn) VALUES (q.name, job_rank, coalesce(next_turn, 0))
    ON CONFLICT ON CONSTRAINT turn_reached_pkey DO UPDATE SET turn = greatest(t.turn, excluded.turn)
    RETURNING t.turn INTO reached;
    INSERT INTO jobwire.turn AS t (queue, rank, group_id, no, turn)
    VALUES (q.name, job_rank, job_group, (SELECT coalesce(max(o.no), 0) + 1 FROM jobwire.turn o WHERE o.queue = q.name), reached + 1)
    ON CONFLICT ON CONSTRAINT turn_pkey DO UPDATE SET turn = greatest(t.turn, reached) + 1
    RETURNING t.turn, t.no INTO place;
    RETURN jobwire.first_turn() + (place.turn << 24) + place.no;
END
$$;

-- Sees to what befell the jobs of a gated queue: takes slots back, and lets in who is next. Returns how many tickets it made, and whether there is more to do.
--
-- One at a time for each queue. Tickets are taken from nobody who holds them: a job that is being claimed or cancelled is left alone.
CREATE FUNCTION jobwire.admit(queue_name text, at_most int, OUT tickets int, OUT more boolean)
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    q jobwire.queue;
    e record;
    b record;
    g text;
    waits_at text;
    given_up text[];
    touched text[];
    seen int := 0;
BEGIN
    tickets := 0;
    more := false;
    -- Should a crash undo this, the events are there again. What is claimed is on disk only after what made it claimable.
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT * INTO q FROM jobwire.queue k WHERE k.name = queue_name FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    WITH opened AS (
        UPDATE jobwire.rate r SET open_at = NULL WHERE r.queue = queue_name AND r.open_at <= clock_timestamp() RETURNING r.gate
    )
    SELECT coalesce(array_agg(o.gate), '{}') INTO touched FROM opened o;
    FOR e IN
        WITH taken AS (
            DELETE FROM jobwire.gate_event v WHERE v.ctid = ANY (ARRAY(
                SELECT t.ctid FROM jobwire.gate_event t WHERE t.queue = queue_name ORDER BY t.n LIMIT at_most FOR UPDATE SKIP LOCKED))
            RETURNING v.n, v.id, v.kind, v.suspect
        )
        SELECT * FROM taken ORDER BY n
    LOOP
        seen := seen + 1;
        -- A key whose order is strict stays with its job until that has left, and with a failed one until somebody decides.
        WITH gone AS (
            DELETE FROM jobwire.slot s WHERE s.queue = queue_name AND s.id = e.id AND NOT (q.policy = 5 AND e.kind <> 2 AND s.gate LIKE 'k%')
            RETURNING s.gate
        )
        SELECT touched || coalesce(array_agg(gone.gate), '{}') INTO touched FROM gone;
        UPDATE jobwire.slot s SET failed = (e.kind = 3) WHERE s.queue = queue_name AND s.id = e.id;
        CONTINUE WHEN e.kind <> 1;
        PERFORM FROM jobwire.live_job l WHERE l.queue = queue_name AND l.id = e.id FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            -- Somebody is cancelling it, or has.
            INSERT INTO jobwire.gate_event (queue, id, kind, suspect) SELECT queue_name, e.id, 1, e.suspect
            WHERE EXISTS (SELECT FROM jobwire.live_job l WHERE l.queue = queue_name AND l.id = e.id);
            CONTINUE;
        END IF;
        waits_at := jobwire.go_on(q, e.id, e.suspect);
        touched := touched || waits_at;
        tickets := tickets + (waits_at IS NULL)::int;
    END LOOP;
    more := seen = at_most;
    -- Those of keys first, so that who is through them can be compared at those of groups.
    touched := ARRAY(SELECT DISTINCT t.gate FROM unnest(touched) AS t (gate) WHERE t.gate IS NOT NULL ORDER BY 1 DESC);
    WHILE cardinality(touched) > 0 LOOP
        g := touched[1];
        touched := touched[2:];
        LOOP
            SELECT t.id, t.rank, t.seq, t.suspect, l.tier INTO b
            FROM jobwire.blocked t JOIN jobwire.live_job l ON l.queue = t.queue AND l.id = t.id
            WHERE t.queue = queue_name AND t.gate = g ORDER BY t.rank, t.seq LIMIT 1 FOR UPDATE SKIP LOCKED;
            EXIT WHEN NOT FOUND;
            IF jobwire.gate_room(q, g, b.tier) <= 0 THEN
                given_up := jobwire.step_back(q, g, b.rank, b.seq);
                EXIT WHEN given_up IS NULL;
                touched := touched || given_up;
            END IF;
            DELETE FROM jobwire.blocked t WHERE t.queue = queue_name AND t.id = b.id;
            INSERT INTO jobwire.slot (queue, id, gate, rank, seq) VALUES (queue_name, b.id, g, b.rank, b.seq);
            waits_at := jobwire.go_on(q, b.id, b.suspect);
            touched := touched || CASE WHEN waits_at IS NULL THEN '{}' ELSE ARRAY[waits_at] END;
            tickets := tickets + (waits_at IS NULL)::int;
        END LOOP;
    END LOOP;
END
$$;

-- How many jobs of a queue with limits may be claimed now, at most `want`, under the lock of its row; and, if its rate is why there are not more, how soon.
CREATE FUNCTION jobwire.claim_room(queue_name text, want int, OUT room int, OUT more_in_ms bigint)
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    q jobwire.queue;
    counted record;
BEGIN
    SELECT * INTO q FROM jobwire.queue k WHERE k.name = queue_name FOR NO KEY UPDATE;
    room := CASE WHEN q.claim_kind = 1 THEN want ELSE 0 END;
    IF q.max_active IS NOT NULL AND room > 0 THEN
        room := least(room, q.max_active - (
            SELECT count(*) FROM jobwire.claim c CROSS JOIN LATERAL unnest(c.ids, c.attempts) AS m (id, attempt)
            CROSS JOIN LATERAL (SELECT FROM jobwire.live_job j WHERE j.queue = c.queue AND j.id = m.id AND j.attempt = m.attempt OFFSET 0) j
            WHERE c.queue = queue_name));
    END IF;
    IF q.rate_starts IS NOT NULL AND room > 0 THEN
        SELECT * INTO counted FROM jobwire.starts_of(queue_name, '', q.rate_ms);
        IF q.rate_starts - counted.starts < room THEN
            room := q.rate_starts - counted.starts;
            -- Of none so far, the first is the one to be made now.
            more_in_ms := ceil(extract(epoch FROM coalesce(counted.first_leaves_at - clock_timestamp(), jobwire.rate_memory(q.rate_ms))) * 1000);
        END IF;
    END IF;
    room := greatest(room, 0);
END
$$;

-- Counts the starts of jobs just claimed, under the same lock.
CREATE FUNCTION jobwire.note_starts(queue_name text, job_ids uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    q jobwire.queue;
    s record;
BEGIN
    SELECT * INTO q FROM jobwire.queue k WHERE k.name = queue_name;
    IF q.rate_starts IS NOT NULL THEN
        PERFORM jobwire.count_starts(queue_name, '', q.rate_ms, cardinality(job_ids), false);
    END IF;
    IF q.group_rate_starts IS NOT NULL THEN
        FOR s IN
            WITH begun AS (
                UPDATE jobwire.slot h SET started = true WHERE h.queue = queue_name AND h.id = ANY (job_ids) AND h.gate LIKE 'g%' AND NOT h.started RETURNING h.gate
            )
            SELECT b.gate, count(*)::int AS starts FROM begun b GROUP BY b.gate
        LOOP
            PERFORM jobwire.count_starts(queue_name, s.gate, q.group_rate_ms, s.starts, true);
        END LOOP;
    END IF;
END
$$;

-- Whether a job still keeps others of its key from being published: as long as it waits for its first run, or lives.
CREATE FUNCTION jobwire.holds(queue_name text, job_id uuid, while_it_lives boolean) RETURNS boolean
LANGUAGE sql VOLATILE AS
$$
    SELECT EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = queue_name AND j.id = job_id AND (while_it_lives OR j.attempt = 1 AND (
        EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq)
        OR EXISTS (SELECT FROM jobwire.scheduled s WHERE s.queue = j.queue AND s.seq = j.seq)
        OR EXISTS (SELECT FROM jobwire.blocked b WHERE b.queue = j.queue AND b.id = j.id)
        OR EXISTS (SELECT FROM jobwire.gate_event e WHERE e.queue = j.queue AND e.id = j.id AND e.kind = 1))))
$$;

-- Whether a job was cancelled or is gone: then its key is free before its time.
CREATE FUNCTION jobwire.withdrawn(queue_name text, job_id uuid) RETURNS boolean
LANGUAGE sql VOLATILE AS
$$
    SELECT NOT EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = queue_name AND j.id = job_id)
        AND NOT EXISTS (SELECT FROM jobwire.archive a WHERE a.queue = queue_name AND a.id = job_id AND a.state <> 5)
$$;

-- Stores jobs as `publish` does, and minds their keys. One after the other; what each becomes is returned by its place in the list:
-- 0 stored, 1 its id is known, 2 the policy refuses another of its key, 3 throttled, 4 debounced, 5 not unique; and which job it met.
--
-- Keys are locked in their order until the commit, so that two calls cannot deadlock, and never wait for what has been published already.
CREATE FUNCTION jobwire.publish_keyed(queue_name text, jobs jsonb, hours float8) RETURNS TABLE (n bigint, outcome smallint, met uuid)
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    q jobwire.queue;
    item record;
    held jobwire.guard;
    new_seq bigint;
    slot_from timestamptz;
BEGIN
    SELECT * INTO q FROM jobwire.queue k WHERE k.name = queue_name;
    INSERT INTO jobwire.guard AS g (queue, kind, key)
    SELECT DISTINCT queue_name, w.kind, coalesce(j.key, '')
    FROM jsonb_to_recordset(jobs) AS j (key text, throttle_ms bigint, debounce_ms bigint, unique_ms bigint)
    CROSS JOIN LATERAL (VALUES (1::smallint, q.policy IN (1, 3, 4)), (2::smallint, j.throttle_ms IS NOT NULL OR j.debounce_ms IS NOT NULL), (3::smallint, j.unique_ms IS NOT NULL)) AS w (kind, wanted)
    WHERE w.wanted ORDER BY 2, 3
    ON CONFLICT ON CONSTRAINT guard_pkey DO UPDATE SET id = g.id;
    FOR item IN
        SELECT j.*, greatest(coalesce(j.start_at, clock_timestamp() + j.start_in_ms * interval '1 millisecond'), clock_timestamp()) AS due, row_number() OVER () AS place
        FROM jsonb_to_recordset(jobs) AS j (id uuid, given boolean, data text, headers text, rank int, start_at timestamptz, start_in_ms bigint,
            retry_limit int, retry_delay_ms bigint, retry_backoff boolean, retry_delay_max_ms bigint, expire_ms bigint, retention_ms bigint,
            dead_letter text, key text, "group" text, tier text, throttle_ms bigint, debounce_ms bigint, unique_ms bigint)
    LOOP
        n := item.place;
        outcome := 0;
        met := NULL;
        IF item.given AND (EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = queue_name AND j.id = item.id)
            OR EXISTS (SELECT FROM jobwire.archive a WHERE a.queue = queue_name AND a.id = item.id AND a.finished_at > clock_timestamp() - hours * interval '1 hour')) THEN
            outcome := 1;
            met := item.id;
            RETURN NEXT;
            CONTINUE;
        END IF;
        IF q.policy IN (1, 3, 4) THEN
            SELECT * INTO held FROM jobwire.guard g WHERE g.queue = queue_name AND g.kind = 1 AND g.key = coalesce(item.key, '');
            IF held.id IS NOT NULL AND jobwire.holds(queue_name, held.id, q.policy = 4) THEN
                outcome := 2;
                met := held.id;
                RETURN NEXT;
                CONTINUE;
            END IF;
        END IF;
        IF item.unique_ms IS NOT NULL THEN
            SELECT * INTO held FROM jobwire.guard g WHERE g.queue = queue_name AND g.kind = 3 AND g.key = coalesce(item.key, '');
            IF held.until > clock_timestamp() AND NOT jobwire.withdrawn(queue_name, held.id) THEN
                outcome := 5;
                met := held.id;
                RETURN NEXT;
                CONTINUE;
            END IF;
        END IF;
        IF coalesce(item.throttle_ms, item.debounce_ms) IS NOT NULL THEN
            slot_from := to_timestamp(floor(extract(epoch FROM clock_timestamp()) * 1000 / coalesce(item.throttle_ms, item.debounce_ms)) * coalesce(item.throttle_ms, item.debounce_ms) / 1000.0);
            SELECT * INTO held FROM jobwire.guard g WHERE g.queue = queue_name AND g.kind = 2 AND g.key = coalesce(item.key, '');
            IF held.until > clock_timestamp() AND NOT jobwire.withdrawn(queue_name, held.id) THEN
                IF item.debounce_ms IS NULL OR held.since > clock_timestamp() THEN
                    outcome := CASE WHEN item.debounce_ms IS NULL THEN 3 ELSE 4 END;
                    met := held.id;
                    RETURN NEXT;
                    CONTINUE;
                END IF;
                slot_from := held.until;
                item.due := greatest(item.due, slot_from);
            ELSIF held.since > clock_timestamp() AND item.debounce_ms IS NOT NULL THEN
                -- The one that had the next slot was cancelled; the slot before it is taken still.
                slot_from := held.since;
                item.due := greatest(item.due, slot_from);
            END IF;
        END IF;
        INSERT INTO jobwire.live_job (queue, id, seq, rank, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, start_after, headers, data,
            key, group_id, tier, dead_letter, gated)
        VALUES (queue_name, item.id, nextval('jobwire.job_seq'), item.rank, item.retry_limit, item.retry_delay_ms, item.retry_backoff, item.retry_delay_max_ms, item.expire_ms, item.retention_ms,
            item.due, item.headers, item.data, item.key, item."group", item.tier, item.dead_letter, CASE WHEN q.gated THEN true END)
        ON CONFLICT DO NOTHING
        RETURNING seq INTO new_seq;
        IF NOT FOUND THEN
            outcome := 1;
            met := item.id;
            RETURN NEXT;
            CONTINUE;
        END IF;
        -- Looked up after the insert, with a fresh snapshot: before it, the job could move from live to archive unseen.
        IF item.given AND EXISTS (SELECT FROM jobwire.archive a
            WHERE a.queue = queue_name AND a.id = item.id AND a.finished_at > clock_timestamp() - hours * interval '1 hour') THEN
            DELETE FROM jobwire.live_job j WHERE j.queue = queue_name AND j.id = item.id;
            outcome := 1;
            met := item.id;
            RETURN NEXT;
            CONTINUE;
        END IF;
        UPDATE jobwire.guard g SET id = item.id WHERE q.policy IN (1, 3, 4) AND g.queue = queue_name AND g.kind = 1 AND g.key = coalesce(item.key, '');
        UPDATE jobwire.guard g SET id = item.id, until = clock_timestamp() + item.unique_ms * interval '1 millisecond'
        WHERE item.unique_ms IS NOT NULL AND g.queue = queue_name AND g.kind = 3 AND g.key = coalesce(item.key, '');
        UPDATE jobwire.guard g SET id = item.id, since = slot_from, until = slot_from + coalesce(item.throttle_ms, item.debounce_ms) * interval '1 millisecond'
        WHERE coalesce(item.throttle_ms, item.debounce_ms) IS NOT NULL AND g.queue = queue_name AND g.kind = 2 AND g.key = coalesce(item.key, '');
        IF item.due > clock_timestamp() AND NOT (q.gated AND q.policy = 5) THEN
            INSERT INTO jobwire.scheduled (queue, rank, seq, id, start_after, gated) VALUES (queue_name, item.rank, new_seq, item.id, item.due, q.gated);
        ELSIF q.gated THEN
            INSERT INTO jobwire.gate_event (queue, id, kind) VALUES (queue_name, item.id, 1);
        ELSE
            INSERT INTO jobwire.ready (queue, rank, seq, id) VALUES (queue_name, item.rank, new_seq, item.id);
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Has the jobs of a queue pass its gates anew, after these have changed. The caller has locked its live jobs, in the order of their ids, and its row.
CREATE FUNCTION jobwire.gate_anew(queue_name text) RETURNS void
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    q jobwire.queue;
    waiting_ids uuid[];
    suspect_ids uuid[];
BEGIN
    SELECT * INTO q FROM jobwire.queue k WHERE k.name = queue_name;
    -- What becomes due meanwhile does so before or after this as a whole.
    PERFORM FROM jobwire.scheduled s WHERE s.queue = queue_name FOR UPDATE;
    WITH from_ready AS (
        DELETE FROM jobwire.ready r WHERE r.queue = queue_name RETURNING r.id, r.suspect
    ), from_blocked AS (
        DELETE FROM jobwire.blocked b WHERE b.queue = queue_name RETURNING b.id, b.suspect
    ), from_events AS (
        DELETE FROM jobwire.gate_event e WHERE e.queue = queue_name RETURNING e.id, e.kind, e.suspect
    ), waiting AS (
        SELECT * FROM from_ready UNION ALL SELECT * FROM from_blocked UNION ALL SELECT f.id, f.suspect FROM from_events f WHERE f.kind = 1
    )
    SELECT coalesce(array_agg(w.id), '{}'), coalesce(array_agg(w.id) FILTER (WHERE w.suspect), '{}') INTO waiting_ids, suspect_ids FROM waiting w;
    DELETE FROM jobwire.slot s WHERE s.queue = queue_name AND NOT (s.failed AND q.policy = 5);
    UPDATE jobwire.live_job l SET gated = CASE WHEN q.gated THEN true END WHERE l.queue = queue_name AND coalesce(l.gated, false) <> q.gated;
    UPDATE jobwire.scheduled s SET gated = q.gated WHERE s.queue = queue_name AND s.gated <> q.gated;
    IF NOT q.fair THEN
        -- Places of turns are behind all others: without turns they would never be reached. They become places before those of what is still to come.
        WITH place AS MATERIALIZED (
            SELECT o.id, nextval('jobwire.job_seq') AS seq
            FROM (SELECT t.id FROM jobwire.live_job t WHERE t.queue = queue_name AND t.seq >= jobwire.first_turn() ORDER BY t.rank, t.seq) o
        ), moved AS (
            UPDATE jobwire.live_job l SET seq = m.seq FROM place m
            WHERE l.queue = queue_name AND l.id = m.id
            RETURNING l.id, l.seq
        )
        UPDATE jobwire.scheduled s SET seq = m.seq FROM moved m WHERE s.queue = queue_name AND s.id = m.id;
    END IF;
    INSERT INTO jobwire.ready (queue, rank, seq, id, suspect)
    SELECT l.queue, l.rank, l.seq, l.id, l.id = ANY (suspect_ids) FROM jobwire.live_job l WHERE l.queue = queue_name AND l.id = ANY (waiting_ids) AND NOT q.gated;
    INSERT INTO jobwire.gate_event (queue, id, kind, suspect)
    SELECT l.queue, l.id, 1, l.id = ANY (suspect_ids) FROM jobwire.live_job l WHERE l.queue = queue_name AND l.id = ANY (waiting_ids) AND q.gated ORDER BY l.rank, l.seq;
    -- What runs has its slots, even if there are more of them than there may be now.
    INSERT INTO jobwire.slot (queue, id, gate, rank, seq, started)
    SELECT l.queue, l.id, g.gate, CASE WHEN q.policy = 5 AND g.gate LIKE 'k%' THEN 0 ELSE l.rank END, l.seq, true
    FROM jobwire.live_job l CROSS JOIN LATERAL unnest(jobwire.gates_of(q, l.key, l.group_id)) AS g (gate)
    WHERE l.queue = queue_name AND l.id <> ALL (waiting_ids)
        AND NOT EXISTS (SELECT FROM jobwire.scheduled s WHERE s.queue = l.queue AND s.seq = l.seq);
END
$$;

-- Every job, live or finished, as GetJob and ListJobs show it. `state` is the number of domain.jobs.JobState; `attempt` counts deliveries so far; `waits_at`: the gate
-- that keeps a blocked job.
CREATE OR REPLACE VIEW jobwire.job_record AS
    SELECT j.queue, j.id, CASE WHEN t.gate IS NOT NULL THEN 7 WHEN t.waiting AND j.attempt = 1 THEN 1 WHEN t.waiting THEN 2 ELSE 3 END AS state, j.data, j.headers, j.rank,
        j.retry_limit, j.retry_delay_ms, j.retry_backoff, j.retry_delay_max_ms, j.expire_ms, j.retention_ms,
        CASE WHEN t.waiting THEN j.attempt - 1 ELSE j.attempt END AS attempt, j.retry_count, j.loss_count, j.release_count, j.progress, j.progress_count, NULL::text AS output, j.errors, j.created_at, j.start_after,
        CASE WHEN t.waiting THEN j.started_at ELSE c.claimed_at END AS started_at, NULL::timestamptz AS finished_at, CASE WHEN t.waiting THEN j.worker ELSE c.worker END AS worker,
        CASE WHEN NOT t.waiting THEN c.session_id END AS session_id, j.stop_reason IS NOT NULL AS stopping,
        j.key, j.group_id, j.tier, j.dead_letter, j.origin, j.checkpoint, t.gate AS waits_at
    FROM jobwire.live_job j
    CROSS JOIN LATERAL (SELECT
        EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq)
        OR EXISTS (SELECT FROM jobwire.scheduled s WHERE s.queue = j.queue AND s.seq = j.seq)
        OR j.gated AND (EXISTS (SELECT FROM jobwire.blocked b WHERE b.queue = j.queue AND b.id = j.id)
            OR EXISTS (SELECT FROM jobwire.gate_event e WHERE e.queue = j.queue AND e.id = j.id AND e.kind = 1)) IS TRUE AS waiting,
        (SELECT b.gate FROM jobwire.blocked b WHERE j.gated AND b.queue = j.queue AND b.id = j.id) AS gate) t
    LEFT JOIN LATERAL (SELECT k.claimed_at, k.worker, k.session_id FROM jobwire.claim k
        WHERE NOT t.waiting AND k.queue = j.queue AND j.id = ANY (k.ids) AND k.attempts[array_position(k.ids, j.id)] = j.attempt LIMIT 1) c ON true
UNION ALL
    SELECT a.queue, a.id, a.state::int, a.data, a.headers, a.rank, a.retry_limit, a.retry_delay_ms, a.retry_backoff, a.retry_delay_max_ms, a.expire_ms, a.retention_ms,
        a.attempt, a.retry_count, a.loss_count, a.release_count, a.progress, a.progress_count, a.output, a.errors, a.created_at, a.start_after, a.started_at, a.finished_at, a.worker, NULL::uuid, false,
        a.key, a.group_id, a.tier, a.dead_letter, a.origin, a.checkpoint, NULL::text
    FROM jobwire.archive a;

-- The same under the column names of pg-boss, for people and reports.
CREATE OR REPLACE VIEW jobwire.job AS
SELECT id, queue AS name, -rank AS priority, data::jsonb AS data, headers::jsonb AS headers,
    (ARRAY['created', 'retry', 'active', 'completed', 'cancelled', 'failed', 'blocked'])[state] AS state,
    retry_limit, retry_count, retry_delay_ms / 1000.0 AS retry_delay, retry_backoff, retry_delay_max_ms / 1000.0 AS retry_delay_max,
    expire_ms / 1000.0 AS expire_seconds, retention_ms / 1000.0 AS deletion_seconds,
    start_after, created_at AS created_on, started_at AS started_on, finished_at AS completed_on,
    output::jsonb AS output, errors, progress, attempt, loss_count, release_count, worker,
    key AS singleton_key, group_id, tier AS group_tier, dead_letter, checkpoint::jsonb AS checkpoint, origin ->> 'queue' AS source_name, (origin ->> 'id')::uuid AS source_id
FROM jobwire.job_record;

-- publish(queue, data, options) stores a job in the caller's own transaction and returns its id: the business row and its job
-- commit together. Options: id, priority, start_after (timestamptz), start_in (seconds), headers (object of texts), retry_limit,
-- retry_delay, retry_backoff, retry_delay_max, expire_in, retention (seconds), key, group, tier, dead_letter, and one of throttle, debounce and unique_for (seconds).
-- The queue must exist. An id that is there already is left as it is; to give one, the transaction must be READ COMMITTED, since an older snapshot does not see what
-- has finished meanwhile. Null: another job of the key stands in the way. A key that is minded is locked until the transaction ends.
-- A queue with a largest depth is counted by each call, up to that depth; what other transactions have not committed is not seen.
CREATE OR REPLACE FUNCTION jobwire.publish(queue text, data jsonb, options jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    q jobwire.queue;
    unknown text;
    new_id uuid := coalesce((options ->> 'id')::uuid, gen_random_uuid());
    became smallint;
    new_rank int := -coalesce((options ->> 'priority')::int, 0);
    due timestamptz := greatest(coalesce((options ->> 'start_after')::timestamptz, clock_timestamp() + (options ->> 'start_in')::float8 * interval '1 second'), clock_timestamp());
    size int := octet_length(publish.data::text);
BEGIN
    SELECT * INTO q FROM jobwire.queue AS known WHERE known.name = publish.queue;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'queue "%" does not exist', publish.queue USING ERRCODE = 'undefined_object', HINT = 'Create it with AdminService.CreateQueue or `jobwire queues create`.';
    END IF;
    SELECT string_agg(k, ', ') INTO unknown FROM jsonb_object_keys(options) k WHERE k NOT IN ('id', 'priority', 'start_after', 'start_in', 'headers',
        'retry_limit', 'retry_delay', 'retry_backoff', 'retry_delay_max', 'expire_in', 'retention', 'key', 'group', 'tier', 'dead_letter', 'throttle', 'debounce', 'unique_for');
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'unknown options: %', unknown USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF size IS NULL OR size > q.max_data_bytes THEN
        RAISE EXCEPTION 'data is % bytes, the queue allows %', coalesce(size::text, 'null'), q.max_data_bytes USING ERRCODE = 'invalid_parameter_value', HINT = 'Store the content elsewhere and publish its key.';
    END IF;
    IF options ? 'id' AND current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an id can only be given under READ COMMITTED' USING ERRCODE = 'invalid_transaction_state',
            HINT = 'Whether a job of that id has finished lately cannot be seen from an older snapshot.';
    END IF;
    IF jsonb_typeof(coalesce(options -> 'headers', '{}')) <> 'object' THEN
        RAISE EXCEPTION 'headers must be an object of texts' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF (SELECT count(*) > 20 OR bool_or(jsonb_typeof(h.value) <> 'string' OR length(h.key) NOT BETWEEN 1 AND 100 OR length(h.value #>> '{}') > 1000)
        FROM jsonb_each(coalesce(options -> 'headers', '{}')) h) THEN
        RAISE EXCEPTION 'headers must be at most 20 texts of up to 1,000 characters, with names of 1 to 100' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT (new_rank BETWEEN -32767 AND 32768
        AND coalesce((options ->> 'retry_limit')::int, 0) BETWEEN 0 AND 1000
        AND coalesce((options ->> 'retry_delay')::float8, 0) BETWEEN 0 AND 604800
        AND coalesce((options ->> 'retry_delay_max')::float8, 0) BETWEEN 0 AND 604800
        AND coalesce((options ->> 'expire_in')::float8, 1) BETWEEN 1 AND 604800
        AND coalesce((options ->> 'retention')::float8, 0) BETWEEN 0 AND 315360000
        AND due < clock_timestamp() + interval '3650 days') THEN
        RAISE EXCEPTION 'an option is out of its range: %', options USING ERRCODE = 'invalid_parameter_value', HINT = 'The ranges stand at JobOptions and JobSpec in the protos.';
    END IF;
    IF EXISTS (SELECT FROM (VALUES ('key', 200), ('group', 200), ('tier', 200)) AS t (name, most)
        WHERE options ? t.name AND (jsonb_typeof(options -> t.name) <> 'string' OR length(options ->> t.name) NOT BETWEEN 1 AND t.most)) THEN
        RAISE EXCEPTION 'key, group and tier must be texts of 1 to 200 characters' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF options ? 'tier' AND NOT options ? 'group' THEN
        RAISE EXCEPTION 'a tier is that of a group: give both, or none' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF (options ? 'throttle')::int + (options ? 'debounce')::int + (options ? 'unique_for')::int > 1
        OR coalesce((options ->> 'throttle')::float8, (options ->> 'debounce')::float8, (options ->> 'unique_for')::float8, 1) NOT BETWEEN 0.001 AND 31536000 THEN
        RAISE EXCEPTION 'only one of throttle, debounce and unique_for can be given, of 0.001 to 31536000 seconds' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF q.policy = 5 AND NOT options ? 'key' THEN
        RAISE EXCEPTION 'queue "%" keeps the order of each key: a job of it must have a key', q.name USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF options ->> 'dead_letter' IS NOT NULL AND NOT EXISTS (SELECT FROM jobwire.queue AS known WHERE known.name = options ->> 'dead_letter') THEN
        RAISE EXCEPTION 'queue "%" does not exist', options ->> 'dead_letter' USING ERRCODE = 'undefined_object', HINT = 'It was named as dead_letter.';
    END IF;
    SELECT p.outcome INTO became FROM jobwire.publish_keyed(q.name, jsonb_build_array(jsonb_build_object(
        'id', new_id, 'given', options ? 'id', 'data', publish.data::text, 'headers', (options -> 'headers')::text, 'rank', new_rank, 'start_at', due,
        'retry_limit', coalesce((options ->> 'retry_limit')::int, q.retry_limit), 'retry_delay_ms', coalesce(((options ->> 'retry_delay')::float8 * 1000)::bigint, q.retry_delay_ms),
        'retry_backoff', coalesce((options ->> 'retry_backoff')::boolean, q.retry_backoff), 'retry_delay_max_ms', coalesce(((options ->> 'retry_delay_max')::float8 * 1000)::bigint, q.retry_delay_max_ms),
        'expire_ms', coalesce(((options ->> 'expire_in')::float8 * 1000)::bigint, q.expire_ms), 'retention_ms', coalesce(((options ->> 'retention')::float8 * 1000)::bigint, q.retention_ms),
        'key', options ->> 'key', 'group', options ->> 'group', 'tier', options ->> 'tier', 'dead_letter', options ->> 'dead_letter',
        'throttle_ms', ((options ->> 'throttle')::float8 * 1000)::bigint, 'debounce_ms', ((options ->> 'debounce')::float8 * 1000)::bigint, 'unique_ms', ((options ->> 'unique_for')::float8 * 1000)::bigint)), 24) p;
    IF became > 0 THEN
        RETURN CASE WHEN became = 1 THEN new_id END;
    END IF;
    -- After what is known already was sorted out; the job stored above counts.
    IF q.max_depth > 0 AND q.max_depth < (SELECT count(*) FROM (
            (SELECT FROM jobwire.ready r WHERE r.queue = q.name LIMIT q.max_depth + 1) UNION ALL (SELECT FROM jobwire.scheduled s WHERE s.queue = q.name LIMIT q.max_depth + 1)
            UNION ALL (SELECT FROM jobwire.blocked b WHERE b.queue = q.name LIMIT q.max_depth + 1)
            UNION ALL (SELECT FROM jobwire.gate_event e WHERE e.queue = q.name AND e.kind = 1 LIMIT q.max_depth + 1)) waiting) THEN
        RAISE EXCEPTION 'queue "%" is full: % jobs may wait in it', q.name, q.max_depth USING ERRCODE = 'configuration_limit_exceeded',
            HINT = 'Publish again when workers have caught up, or raise its max_depth.';
    END IF;
    IF q.notify THEN
        PERFORM pg_notify(jobwire.channel(q.name), 'ready');
    END IF;
    RETURN new_id;
END
$$;
