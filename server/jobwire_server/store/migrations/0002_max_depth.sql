-- A queue may have a largest depth, which publish() keeps as well.
--
-- Older servers go on beside this: they name their columns, and what they publish is not bounded.

-- ALTER TABLE waits for whoever has called publish() in a transaction that is still open, and everybody who publishes waits behind
-- it: so it gives up soon, and the server tries again.
SET LOCAL lock_timeout = '1s';

ALTER TABLE jobwire.queue ADD COLUMN
    -- How many jobs may wait, ready or scheduled; 0: any number.
    max_depth bigint NOT NULL DEFAULT 0 CHECK (max_depth >= 0);

-- publish(queue, data, options) stores a job in the caller's own transaction and returns its id: the business row and its job
-- commit together. Options: id, priority, start_after (timestamptz), start_in (seconds), headers (object of texts), retry_limit,
-- retry_delay, retry_backoff, retry_delay_max, expire_in, retention (seconds). The queue must exist. An id that is there already is
-- left as it is; to give one, the transaction must be READ COMMITTED, since an older snapshot does not see what has finished meanwhile.
-- A queue with a largest depth is counted by each call, up to that depth; what other transactions have not committed is not seen.
CREATE OR REPLACE FUNCTION jobwire.publish(queue text, data jsonb, options jsonb DEFAULT '{}') RETURNS uuid
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
    -- After what is known already was sorted out; the job stored above has no ticket yet, and so is not counted.
    IF q.max_depth > 0 AND q.max_depth <= (SELECT count(*) FROM (
            (SELECT FROM jobwire.ready r WHERE r.queue = q.name LIMIT q.max_depth) UNION ALL (SELECT FROM jobwire.scheduled s WHERE s.queue = q.name LIMIT q.max_depth)) waiting) THEN
        RAISE EXCEPTION 'queue "%" is full: % jobs may wait in it', q.name, q.max_depth USING ERRCODE = 'configuration_limit_exceeded',
            HINT = 'Publish again when workers have caught up, or raise its max_depth.';
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
