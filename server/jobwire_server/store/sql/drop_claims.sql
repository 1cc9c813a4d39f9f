-- Removes all claims of one queue none of whose jobs is live any more.
DELETE FROM jobwire.claim c WHERE c.queue = %(queue)s
    AND NOT EXISTS (SELECT FROM unnest(c.ids) AS m (id) CROSS JOIN LATERAL (SELECT FROM jobwire.live_job k WHERE k.queue = c.queue AND k.id = m.id OFFSET 0) j)
