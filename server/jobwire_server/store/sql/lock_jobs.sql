-- Locks live jobs in the order of the input, which is that of queues and ids, for transactions that then touch them in several statements.
-- The first queue is that of all jobs for which none is named.
WITH input AS MATERIALIZED (
    SELECT coalesce(i.queue, (%(queues)b::text[])[1]) COLLATE "C" AS queue, i.id FROM unnest(%(queues)b::text[], %(ids)b::uuid[]) AS i (queue, id)
)
SELECT j.id FROM input i CROSS JOIN LATERAL (
    SELECT k.id FROM jobwire.live_job k WHERE k.queue = i.queue AND k.id = i.id FOR UPDATE
) j
