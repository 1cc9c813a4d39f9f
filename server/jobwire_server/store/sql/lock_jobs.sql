-- Locks live jobs of one queue in the order of their ids, for transactions that then touch them in several statements.
WITH input AS MATERIALIZED (
    SELECT %(queue)s::text COLLATE "C" AS queue, i.id FROM unnest(%(ids)b::uuid[]) AS i (id)
)
SELECT j.id FROM input i JOIN jobwire.live_job j ON j.queue = i.queue AND j.id = i.id FOR UPDATE OF j
