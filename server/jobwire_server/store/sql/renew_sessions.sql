-- Raises the counters of this replica's sessions; a session that is not returned was taken over or ended. Locks in the order of the ids, as claims do.
WITH mine AS MATERIALIZED (
    SELECT s.id FROM unnest(%(ids)b::uuid[], %(epochs)b::int8[]) AS m (id, epoch)
    JOIN jobwire.session s ON s.id = m.id AND s.epoch = m.epoch AND s.owner = %(replica)s
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
)
UPDATE jobwire.session s SET renewals = s.renewals + 1 FROM mine WHERE s.id = mine.id RETURNING s.id
