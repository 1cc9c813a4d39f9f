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

CREATE INDEX live_job_key ON jobwire.live_job (queue, key, id) WHERE key IS NOT NULL;
CREATE INDEX archive_key ON jobwire.archive (queue, key, id) WHERE key IS NOT NULL;

-- Jobs that did not complete (4): few of many, and those that are looked for.
CREATE INDEX archive_incomplete ON jobwire.archive (queue, id) INCLUDE (state) WHERE state <> 4;

-- How many rows PostgreSQL's statistics make it expect, for counts that nobody wants to wait for: of `ready`, of `scheduled`, or of the failed jobs.
CREATE FUNCTION jobwire.estimated(what text, queue text) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    plan json;
BEGIN
    CASE what
        WHEN 'ready' THEN EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM jobwire.ready t WHERE t.queue = %L', queue) INTO plan;
        WHEN 'scheduled' THEN EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM jobwire.scheduled t WHERE t.queue = %L', queue) INTO plan;
        WHEN 'failed' THEN EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM jobwire.archive t WHERE t.queue = %L AND t.state = 6', queue) INTO plan;
    END CASE;
    RETURN (plan #>> '{0,Plan,Plan Rows}')::float8::bigint;
END
$$;
