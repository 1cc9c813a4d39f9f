-- Removes claims all of whose deliveries are settled. They are looked up one by one, so that no plan can walk over the others.
DELETE FROM jobwire.claim WHERE ctid = ANY (ARRAY(
    SELECT c.ctid FROM unnest(%(queues)b::text[], %(tokens)b::uuid[]) AS settled (queue, token)
    CROSS JOIN LATERAL (SELECT k.ctid FROM jobwire.claim k WHERE k.queue = settled.queue COLLATE "C" AND k.token = settled.token OFFSET 0) c
))
