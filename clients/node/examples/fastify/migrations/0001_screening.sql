-- The business rows of the example. Jobwire's own tables are in its own schema, which only its server touches.

CREATE TABLE IF NOT EXISTS screening (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    criteria jsonb NOT NULL,
    items jsonb NOT NULL,
    -- The job that screens the items, published by the transaction that stored this row.
    job_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- A job may run again, so its results are written by a key: the second time they replace themselves.
CREATE TABLE IF NOT EXISTS decision (
    screening_id uuid NOT NULL REFERENCES screening ON DELETE CASCADE,
    item integer NOT NULL,
    verdict text NOT NULL CHECK (verdict IN ('include', 'exclude', 'unsure')),
    reason text NOT NULL,
    -- Which delivery of the job wrote it. It only grows, so a run that was given up cannot overwrite a later one's.
    attempt integer NOT NULL,
    PRIMARY KEY (screening_id, item)
);
