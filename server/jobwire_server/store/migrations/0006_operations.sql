-- What operators need: a record of what they did, and indexes by which jobs are found. None of these is written for a plain job.
--
-- Older servers go on beside this: they record nothing.

SET LOCAL lock_timeout = '1s';

-- What one operator did at one time. What takes several transactions is one row, whose counts grow.
CREATE TABLE jobwire.action (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    what text NOT NULL,
    -- Null if it was about all queues.
    queue text COLLATE "C",
    selection jsonb NOT NULL DEFAULT '{}',
    matched bigint NOT NULL DEFAULT 0,
    changed bigint NOT NULL DEFAULT 0
);

CREATE INDEX action_at ON jobwire.action (at);
CREATE INDEX action_queue ON jobwire.action (queue, id);

-- Jobs that did not complete (4): few of many, and those that are looked for. Making it reads the archive once, and outcomes wait for that.
CREATE INDEX archive_incomplete ON jobwire.archive (queue, id) INCLUDE (state) WHERE state <> 4;

-- How many rows PostgreSQL's statistics make it expect, for counts that nobody wants to wait for: of a queue's tickets, or of its failed jobs.
CREATE FUNCTION jobwire.estimated(what text, queue text) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    plan json;
BEGIN
    CASE what
        WHEN 'ready' THEN EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM jobwire.ready t WHERE t.queue = %L', queue) INTO plan;
        WHEN 'scheduled' THEN EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM jobwire.scheduled t WHERE t.queue = %L', queue) INTO plan;
        WHEN 'blocked' THEN EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM jobwire.blocked t WHERE t.queue = %L', queue) INTO plan;
        WHEN 'failed' THEN EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM jobwire.archive t WHERE t.queue = %L AND t.state = 6', queue) INTO plan;
    END CASE;
    RETURN (plan #>> '{0,Plan,Plan Rows}')::float8::bigint;
END
$$;

-- Has jobs take the keys that a queue's policy minds, as publish_keyed() does, before they come to wait there otherwise. Each key's first takes it, if no other job has it; returns the others.
-- As there a job keeps its key as long as it waits for its first run, or (exclusive) lives. The jobs come in the order of their keys.
CREATE FUNCTION jobwire.take_keys(queue_name text, job_ids uuid[], job_keys text[], first_runs boolean[]) RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    minded smallint := (SELECT q.policy FROM jobwire.queue q WHERE q.name = queue_name);
    item record;
    held uuid;
    last_taken text;
BEGIN
    IF minded = 5 THEN
        -- Each job must have a key.
        RETURN QUERY SELECT j.id FROM unnest(job_ids, job_keys) AS j (id, key) WHERE j.key IS NULL;
    END IF;
    IF minded IS NULL OR minded NOT IN (1, 3, 4) THEN
        RETURN;
    END IF;
    INSERT INTO jobwire.guard AS g (queue, kind, key)
    SELECT DISTINCT queue_name, 1, coalesce(k.key, '') FROM unnest(job_keys) AS k (key) ORDER BY 3
    ON CONFLICT ON CONSTRAINT guard_pkey DO UPDATE SET id = g.id;
    FOR item IN
        SELECT j.id, coalesce(j.key, '') AS key FROM unnest(job_ids, job_keys, first_runs) AS j (id, key, first_run) WHERE j.first_run OR minded = 4 ORDER BY 2, 1
    LOOP
        SELECT g.id INTO held FROM jobwire.guard g WHERE g.queue = queue_name AND g.kind = 1 AND g.key = item.key;
        IF last_taken = item.key OR held <> item.id AND jobwire.holds(queue_name, held, minded = 4) THEN
            RETURN NEXT item.id;
        ELSE
            last_taken := item.key;
            UPDATE jobwire.guard g SET id = item.id WHERE g.queue = queue_name AND g.kind = 1 AND g.key = item.key;
        END IF;
    END LOOP;
END
$$;

-- Puts the row of a queue back whose deletion came too early, unless there is one again: all its columns, whichever there are by then, but those that are computed.
CREATE FUNCTION jobwire.restore_queue(gone jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    columns text := (SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
        WHERE attrelid = 'jobwire.queue'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '');
BEGIN
    EXECUTE format('INSERT INTO jobwire.queue (%1$s) SELECT %1$s FROM jsonb_populate_record(NULL::jobwire.queue, $1) ON CONFLICT (name) DO NOTHING', columns) USING gone;
END
$$;
