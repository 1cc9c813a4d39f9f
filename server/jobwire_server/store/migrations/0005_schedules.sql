-- Schedules: jobs that are made by themselves, at times that the servers work out and the database's clock brings about.
--
-- Older servers go on beside this, and leave schedules to those that know them.

CREATE TABLE jobwire.schedule (
    -- Another one for a schedule that was deleted and made anew: the ids of jobs are made of it.
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text COLLATE "C" NOT NULL UNIQUE,
    queue text COLLATE "C" NOT NULL,
    -- When it is due: by a cron line and the clocks of a zone, each time so long has passed since an anchor, or at one point in time.
    cron text,
    time_zone text,
    every_ms bigint,
    anchor timestamptz,
    once_at timestamptz,
    -- The number of domain.schedules.MissedRuns.
    missed smallint NOT NULL,
    missed_limit int NOT NULL,
    tolerance_ms bigint NOT NULL,
    -- What its jobs have in common: the payload, and what else was said of them, as the fields of domain.jobs.NewJob.
    data text NOT NULL,
    job jsonb NOT NULL,
    paused boolean NOT NULL DEFAULT false,
    -- The first due time that has not had its turn; null while it is paused, and if none is to come. Moved only by the transaction
    -- that stores the job of the time before, on condition of what it was and of `revision`: so each due time has its turn once.
    next_run_at timestamptz,
    -- When to look at it next: at that time, or later if its queue had no room.
    look_at timestamptz,
    -- Raised by whatever changes it but its runs.
    revision bigint NOT NULL DEFAULT 1,
    runs bigint NOT NULL DEFAULT 0,
    last_due_at timestamptz,
    last_run_at timestamptz,
    last_job_id uuid,
    last_error text NOT NULL DEFAULT '',
    last_error_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (num_nonnulls(cron, every_ms, once_at) = 1 AND (cron IS NULL) = (time_zone IS NULL) AND (every_ms IS NULL) = (anchor IS NULL)),
    CHECK ((look_at IS NULL) = (next_run_at IS NULL) AND NOT (paused AND next_run_at IS NOT NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX schedule_look ON jobwire.schedule (look_at);
