-- Asks a session's client to leave; the first time counts.
UPDATE jobwire.session SET quiet_at = coalesce(quiet_at, clock_timestamp()) WHERE id = %(id)s RETURNING owner, quiet_at
