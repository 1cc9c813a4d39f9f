-- Puts empty claims in the place of claims whose result is not known. One that is still under way is waited for, or fails on the token later; either way the
-- next statement sees all there will ever be. Sessions that are over need none: their claims find no session.
WITH alive AS MATERIALIZED (
    SELECT s.id, s.epoch, s.worker, d.token FROM unnest(%(tokens)b::uuid[], %(sessions)b::uuid[]) AS d (token, session_id)
    JOIN jobwire.session s ON s.id = d.session_id ORDER BY s.id FOR SHARE OF s
)
INSERT INTO jobwire.claim (queue, token, session_id, epoch, worker, claimed_at, check_at, ids, attempts)
SELECT %(queue)s, token, id, epoch, worker, clock_timestamp(), 'infinity', '{}', '{}' FROM alive ORDER BY token
ON CONFLICT (queue, token) DO NOTHING
