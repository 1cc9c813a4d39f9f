-- What an operator sees of a session, and asks of it.
ALTER TABLE jobwire.session
    -- How it shares its credits among its queues, as the contract's QueueShare messages; null: no shares.
    ADD COLUMN shares jsonb,
    -- Since when it has been asked to leave.
    ADD COLUMN quiet_at timestamptz,
    -- Since when it has had no stream, and when its owner renewed it last: as of its last renewal.
    ADD COLUMN detached_at timestamptz,
    ADD COLUMN renewed_at timestamptz;
