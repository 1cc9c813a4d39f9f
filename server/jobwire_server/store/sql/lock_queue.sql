-- Locks a queue's row, as those do who hand out slots; no row: there is no such queue.
SELECT name, policy, gated FROM jobwire.queue WHERE name = %(queue)s FOR NO KEY UPDATE
