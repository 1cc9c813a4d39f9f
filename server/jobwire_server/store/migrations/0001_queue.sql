-- Queues, live jobs, their tickets, claims, sessions and the archive.
--
-- A live job's row is written when it is published and deleted when it ends; being claimed does not touch it. Where the job
-- stands is told by what points to it: a ticket in `ready` (may be claimed), a ticket in `scheduled` (waits for a time), or
-- neither (active: a claim names it). Statements name the schema `jobwire`; the server puts the configured name in its place.

CREATE TABLE jobwire.queue (
    name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9_-]{1,63}$'),
    retry_limit int NOT NULL,
    retry_delay_ms bigint NOT NULL,
    retry_backoff boolean NOT NULL,
    retry_delay_max_ms bigint NOT NULL,
    expire_ms bigint NOT NULL,
    retention_ms bigint NOT NULL,
    max_data_bytes int NOT NULL,
    -- Whether the SQL function publish() wakes the servers; they look once a second anyway.
    notify boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE SEQUENCE jobwire.job_seq;

CREATE TABLE jobwire.live_job (
    queue text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    -- Given by the database at the insert: the order among equal priorities, kept through retries.
    seq bigint NOT NULL,
    -- Minus the priority, so that ascending order is claim order.
    rank int NOT NULL,
    -- The number of the delivery that runs, or comes next. Raised by whatever ends a lease without ending the job: with the
    -- row's deletion the only ways in which a lease ends.
    attempt int NOT NULL DEFAULT 1,
    retry_count int NOT NULL DEFAULT 0,
    loss_count int NOT NULL DEFAULT 0,
    release_count int NOT NULL DEFAULT 0,
    retry_limit int NOT NULL,
    retry_delay_ms bigint NOT NULL,
    retry_backoff boolean NOT NULL,
    retry_delay_max_ms bigint NOT NULL,
    expire_ms bigint NOT NULL,
    retention_ms bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    start_after timestamptz NOT NULL,
    -- The rest is null until something out of the ordinary happens.
    -- Of the running delivery: the time limit if `extend` moved it; why and until when it is to stop.
    expires_at timestamptz,
    stop_reason smallint,
    stop_at timestamptz,
    -- Of the delivery that ended last by `fail` or `release`: its token, so that the Ack's repetition is known again.
    settled_token uuid,
    started_at timestamptz,
    worker text,
    progress jsonb,
    progress_count int NOT NULL DEFAULT 0,
    errors jsonb,
    headers text,
    data text NOT NULL,
    PRIMARY KEY (queue, id)
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX live_job_stopping ON jobwire.live_job (queue, id) WHERE stop_reason IS NOT NULL;

-- A ticket for each job that may be claimed. The primary key is the claim order.
CREATE TABLE jobwire.ready (
    queue text COLLATE "C" NOT NULL,
    rank int NOT NULL,
    seq bigint NOT NULL,
    id uuid NOT NULL,
    -- Lost with a session before: claimed alone.
    suspect boolean NOT NULL DEFAULT false,
    PRIMARY KEY (queue, rank, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX ready_suspect ON jobwire.ready (queue, rank, seq) WHERE suspect;

-- A ticket for each job that waits for a time.
CREATE TABLE jobwire.scheduled (
    queue text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    rank int NOT NULL,
    id uuid NOT NULL,
    suspect boolean NOT NULL DEFAULT false,
    start_after timestamptz NOT NULL,
    PRIMARY KEY (queue, seq)
);

CREATE INDEX scheduled_due ON jobwire.scheduled (start_after);

CREATE TABLE jobwire.session (
    id uuid PRIMARY KEY,
    epoch bigint NOT NULL,
    -- Raised by its owner every few seconds; whoever sees it stand still for `grace_ms` may end the session.
    renewals bigint NOT NULL DEFAULT 0,
    grace_ms int NOT NULL,
    owner uuid NOT NULL,
    worker text NOT NULL,
    queues text[] NOT NULL,
    max_in_flight int NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attached_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);

-- A group of jobs taken for one session by one statement. Never updated but for `check_at`. A lease is valid if and only if its
-- claim names the job at the handle's place and the attempt noted there is the live job's attempt.
CREATE TABLE jobwire.claim (
    queue text COLLATE "C" NOT NULL,
    token uuid NOT NULL,
    session_id uuid NOT NULL,
    epoch bigint NOT NULL,
    worker text NOT NULL,
    claimed_at timestamptz NOT NULL,
    -- No member's time limit or stop grace ends before this.
    check_at timestamptz NOT NULL,
    ids uuid[] NOT NULL,
    attempts int[] NOT NULL,
    PRIMARY KEY (queue, token)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);

-- Groups are small enough to stay in the row; compressing random ids gains nothing.
ALTER TABLE jobwire.claim ALTER ids SET STORAGE PLAIN, ALTER attempts SET STORAGE PLAIN;
CREATE INDEX claim_session ON jobwire.claim (session_id);
CREATE INDEX claim_check ON jobwire.claim (check_at);

-- Finished jobs, by the day on which they may be dropped.
CREATE TABLE jobwire.archive (
    queue text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    seq bigint NOT NULL,
    rank int NOT NULL,
    attempt int NOT NULL,
    retry_count int NOT NULL,
    loss_count int NOT NULL,
    release_count int NOT NULL,
    retry_limit int NOT NULL,
    retry_delay_ms bigint NOT NULL,
    retry_backoff boolean NOT NULL,
    retry_delay_max_ms bigint NOT NULL,
    expire_ms bigint NOT NULL,
    retention_ms bigint NOT NULL,
    created_at timestamptz NOT NULL,
    start_after timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    drop_on date NOT NULL,
    -- The number of domain.jobs.JobState: 4 completed, 5 cancelled, 6 failed.
    state smallint NOT NULL,
    -- Of the delivery that brought the outcome; null if none did.
    token uuid,
    worker text,
    progress jsonb,
    progress_count int NOT NULL,
    errors jsonb,
    headers text,
    data text NOT NULL,
    output text
) PARTITION BY RANGE (drop_on);

-- Not unique: an id may be used again once the window of repeated publishing is over.
CREATE INDEX archive_id ON jobwire.archive (queue, id);

-- The day on which a job finished now may be dropped: the first day that lies wholly after its retention.
CREATE FUNCTION jobwire.drop_day(retention_ms bigint) RETURNS date
LANGUAGE sql VOLATILE PARALLEL SAFE AS
$$ SELECT ((clock_timestamp() AT TIME ZONE 'UTC') + retention_ms * interval '1 millisecond')::date + 1 $$;

-- The pause before a retry: doubling if so told, with jitter of up to half of it, within its bound.
CREATE FUNCTION jobwire.retry_pause(delay_ms bigint, backoff boolean, bound_ms bigint, retry_count int) RETURNS interval
LANGUAGE sql VOLATILE PARALLEL SAFE AS
$$ SELECT least(CASE WHEN backoff THEN delay_ms * (2 ^ least(retry_count, 30)) * (0.5 + random() / 2) ELSE delay_ms END, bound_ms) * interval '1 millisecond' $$;

-- The name of a queue's channel. The schema's name goes into it with its quotes and its dot, as put in place of the text before `||`.
CREATE FUNCTION jobwire.channel(queue text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT 'jobwire_' || substr(md5('jobwire.' || queue), 1, 24) $$;

-- Every job, live or finished, as GetJob and ListJobs show it. `state` is the number of domain.jobs.JobState; `attempt` counts deliveries so far.
CREATE VIEW jobwire.job_record AS
    SELECT j.queue, j.id, CASE WHEN t.waiting AND j.attempt = 1 THEN 1 WHEN t.waiting THEN 2 ELSE 3 END AS state, j.data, j.headers, j.rank,
        j.retry_limit, j.retry_delay_ms, j.retry_backoff, j.retry_delay_max_ms, j.expire_ms, j.retention_ms,
        CASE WHEN t.waiting THEN j.attempt - 1 ELSE j.attempt END AS attempt, j.retry_count, j.loss_count, j.release_count, j.progress, j.progress_count, NULL::text AS output, j.errors, j.created_at, j.start_after,
        CASE WHEN t.waiting THEN j.started_at ELSE c.claimed_at END AS started_at, NULL::timestamptz AS finished_at, CASE WHEN t.waiting THEN j.worker ELSE c.worker END AS worker,
        CASE WHEN NOT t.waiting THEN c.session_id END AS session_id, j.stop_reason IS NOT NULL AS stopping
    FROM jobwire.live_job j
    CROSS JOIN LATERAL (SELECT
        EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq)
        OR EXISTS (SELECT FROM jobwire.scheduled s WHERE s.queue = j.queue AND s.seq = j.seq) AS waiting) t
    LEFT JOIN LATERAL (SELECT k.claimed_at, k.worker, k.session_id FROM jobwire.claim k
        WHERE NOT t.waiting AND k.queue = j.queue AND j.id = ANY (k.ids) AND k.attempts[array_position(k.ids, j.id)] = j.attempt LIMIT 1) c ON true
UNION ALL
    SELECT a.queue, a.id, a.state::int, a.data, a.headers, a.rank, a.retry_limit, a.retry_delay_ms, a.retry_backoff, a.retry_delay_max_ms, a.expire_ms, a.retention_ms,
        a.attempt, a.retry_count, a.loss_count, a.release_count, a.progress, a.progress_count, a.output, a.errors, a.created_at, a.start_after, a.started_at, a.finished_at, a.worker, NULL::uuid, false
    FROM jobwire.archive a;

-- The same under the column names of pg-boss, for people and reports.
CREATE VIEW jobwire.job AS
SELECT id, queue AS name, -rank AS priority, data::jsonb AS data, headers::jsonb AS headers,
    (ARRAY['created', 'retry', 'active', 'completed', 'cancelled', 'failed', 'blocked'])[state] AS state,
    retry_limit, retry_count, retry_delay_ms / 1000.0 AS retry_delay, retry_backoff, retry_delay_max_ms / 1000.0 AS retry_delay_max,
    expire_ms / 1000.0 AS expire_seconds, retention_ms / 1000.0 AS deletion_seconds,
    start_after, created_at AS created_on, started_at AS started_on, finished_at AS completed_on,
    output::jsonb AS output, errors, progress, attempt, loss_count, release_count, worker
FROM jobwire.job_record;

-- publish(queue, data, options) stores a job in the caller's own transaction and returns its id: the business row and its job
-- commit together. Options: id, priority, start_after (timestamptz), start_in (seconds), headers (object of texts), retry_limit,
-- retry_delay, retry_backoff, retry_delay_max, expire_in, retention (seconds). The queue must exist. An id that is there already is
-- left as it is; to give one, the transaction must be READ COMMITTED, since an older snapshot does not see what has finished meanwhile.
CREATE FUNCTION jobwire.publish(queue text, data jsonb, options jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    q jobwire.queue;
    unknown text;
    new_id uuid := coalesce((options ->> 'id')::uuid, gen_random_uuid());
    new_seq bigint;
    new_rank int := -coalesce((options ->> 'priority')::int, 0);
    due timestamptz := greatest(coalesce((options ->> 'start_after')::timestamptz, clock_timestamp() + (options ->> 'start_in')::float8 * interval '1 second'), clock_timestamp());
    size int := octet_length(publish.data::text);
BEGIN
    SELECT * INTO q FROM jobwire.queue AS known WHERE known.name = publish.queue;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'queue "%" does not exist', publish.queue USING ERRCODE = 'undefined_object', HINT = 'Create it with AdminService.CreateQueue or `jobwire queues create`.';
    END IF;
    SELECT string_agg(k, ', ') INTO unknown FROM jsonb_object_keys(options) k WHERE k NOT IN ('id', 'priority', 'start_after', 'start_in', 'headers',
        'retry_limit', 'retry_delay', 'retry_backoff', 'retry_delay_max', 'expire_in', 'retention');
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
    INSERT INTO jobwire.live_job (queue, id, seq, rank, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, start_after, headers, data)
    VALUES (q.name, new_id, nextval('jobwire.job_seq'), new_rank,
        coalesce((options ->> 'retry_limit')::int, q.retry_limit), coalesce((options ->> 'retry_delay')::float8 * 1000, q.retry_delay_ms),
        coalesce((options ->> 'retry_backoff')::boolean, q.retry_backoff), coalesce((options ->> 'retry_delay_max')::float8 * 1000, q.retry_delay_max_ms),
        coalesce((options ->> 'expire_in')::float8 * 1000, q.expire_ms), coalesce((options ->> 'retention')::float8 * 1000, q.retention_ms),
        due, (options -> 'headers')::text, publish.data::text)
    ON CONFLICT DO NOTHING
    RETURNING seq INTO new_seq;
    IF NOT FOUND THEN
        RETURN new_id;
    END IF;
    -- Looked up after the insert, with a fresh snapshot: before it, the job could move from live to archive unseen.
    IF options ? 'id' AND EXISTS (SELECT FROM jobwire.archive a
        WHERE a.queue = q.name AND a.id = new_id AND a.finished_at > clock_timestamp() - interval '24 hours') THEN
        DELETE FROM jobwire.live_job j WHERE j.queue = q.name AND j.id = new_id;
        RETURN new_id;
    END IF;
    IF due <= clock_timestamp() THEN
        INSERT INTO jobwire.ready (queue, rank, seq, id) VALUES (q.name, new_rank, new_seq, new_id);
    ELSE
        INSERT INTO jobwire.scheduled (queue, rank, seq, id, start_after) VALUES (q.name, new_rank, new_seq, new_id, due);
    END IF;
    IF q.notify THEN
        PERFORM pg_notify(jobwire.channel(q.name), 'ready');
    END IF;
    RETURN new_id;
END
$$;

REVOKE ALL ON FUNCTION jobwire.publish(text, jsonb, jsonb) FROM PUBLIC;

COMMENT ON FUNCTION jobwire.publish(text, jsonb, jsonb) IS 'Publishes a job in the caller''s own transaction. GRANT USAGE ON SCHEMA and EXECUTE to application roles.';
COMMENT ON VIEW jobwire.job IS 'Live and finished jobs under the column names of pg-boss.';
