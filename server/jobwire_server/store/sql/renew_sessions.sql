-- Raises the counters of this replica's sessions, and notes how they stand; a session that is not returned was taken over or ended. Locks in the
-- order of the ids, as claims do. `aways` says for how many milliseconds a session has had no stream, -1 while it has one. It is a resume that says of a
-- session that it has one again: a renewal may have been on its way while the drain of this replica noted that it has none.
WITH mine AS MATERIALIZED (
    SELECT s.id, m.credits, m.away FROM unnest(%(ids)b::uuid[], %(epochs)b::int8[], %(credits)b::int4[], %(aways)b::int8[]) AS m (id, epoch, credits, away)
    JOIN jobwire.session s ON s.id = m.id AND s.epoch = m.epoch AND s.owner = %(replica)s
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
)
UPDATE jobwire.session s SET renewals = s.renewals + 1, renewed_at = clock_timestamp(), max_in_flight = mine.credits,
    detached_at = CASE WHEN mine.away >= 0 THEN coalesce(s.detached_at, clock_timestamp() - mine.away * interval '1 millisecond') ELSE s.detached_at END
FROM mine WHERE s.id = mine.id RETURNING s.id, s.quiet_at IS NOT NULL AS quiet
