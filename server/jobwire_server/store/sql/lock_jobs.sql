-- Locks live jobs of one queue in the order of their ids, for transactions that then touch them in several statements.
WITH input AS MATERIALIZED (
    SELECT %(queue)s::text COLLATE "C" AS queue, i.id FROM unnest(%(ids)b::uuid[]) AS i (id)
)
SELECT j.id FROM input i CROSS JOIN LATERAL (
    SELECT k.id FROM jobwire.live_job k WHERE k.queue = i.queue AND k.id = i.id FOR UPDATE
) j
