-- Raises the counters of this replica's sessions; a session that is not returned was taken over or ended.
UPDATE jobwire.session s SET renewals = s.renewals + 1, grace_ms = %(grace_ms)s
FROM unnest(%(ids)b::uuid[], %(epochs)b::int8[]) AS mine (id, epoch)
WHERE s.id = mine.id AND s.epoch = mine.epoch AND s.owner = %(replica)s
RETURNING s.id
