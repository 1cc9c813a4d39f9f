-- Takes jobs that are not live any more out of the claims that still name them: before their ids become free, which is a day after they finished, or when their day of the archive goes.
UPDATE jobwire.claim c SET ids = ARRAY(
    SELECT CASE WHEN EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = c.queue AND j.id = u.id) THEN u.id END FROM unnest(c.ids) WITH ORDINALITY AS u (id, place) ORDER BY place)
WHERE EXISTS (SELECT FROM unnest(c.ids) AS m (id) WHERE m.id IS NOT NULL AND NOT EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = c.queue AND j.id = m.id))
