-- Takes a session over for a stream of a higher epoch (0: one more than the last) and says who owned it before. No row: the epoch is not higher, or there is no such session.
WITH before AS MATERIALIZED (
    SELECT id, owner, epoch FROM jobwire.session WHERE id = %(id)s FOR UPDATE
)
UPDATE jobwire.session s SET epoch = CASE WHEN %(epoch)s::int8 = 0 THEN b.epoch + 1 ELSE %(epoch)s::int8 END, renewals = s.renewals + 1, grace_ms = %(grace_ms)s, owner = %(replica)s,
    worker = %(worker)s, queues = %(queues)b, max_in_flight = %(max_in_flight)s, shares = %(shares)s::jsonb, attached_at = clock_timestamp(), detached_at = NULL
FROM before b WHERE s.id = b.id AND (%(epoch)s::int8 = 0 OR %(epoch)s::int8 > b.epoch)
RETURNING s.epoch, b.owner AS previous_owner, s.quiet_at IS NOT NULL AS quiet
