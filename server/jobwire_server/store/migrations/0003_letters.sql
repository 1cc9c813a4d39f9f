-- Letters between servers: for those that a pooler keeps from listening.
--
-- Hints, as notifications are, so they may be lost in a crash: unlogged, and no write of them waits for the disk.

-- A server behind a pooler, by the name of its channel. It empties its box about once a second; a box left alone is cleared away.
CREATE UNLOGGED TABLE jobwire.letterbox (
    channel text COLLATE "C" PRIMARY KEY,
    emptied_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- What would have been a notification on that channel. Deleted when it is read.
CREATE UNLOGGED TABLE jobwire.letter (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel text COLLATE "C" NOT NULL,
    payload text NOT NULL,
    posted_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
