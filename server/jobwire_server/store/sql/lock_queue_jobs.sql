-- Locks the live jobs of a queue in the order of their ids, up to a number.
SELECT id, key FROM jobwire.live_job WHERE queue = %(queue)s ORDER BY queue, id LIMIT %(most)s FOR UPDATE
