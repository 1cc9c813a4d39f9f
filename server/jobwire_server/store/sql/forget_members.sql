-- Takes jobs of one queue whose ids become free out of the claims that still name them: stored again under such an id, a job would begin with the attempt of its namesake's
-- lease. The claims' rows are locked last, after which nothing is waited for.
UPDATE jobwire.claim c SET ids = ARRAY(SELECT CASE WHEN u.id <> ALL (%(ids)b::uuid[]) THEN u.id END FROM unnest(c.ids) WITH ORDINALITY AS u (id, place) ORDER BY place)
WHERE c.queue = %(queue)s AND c.ids && %(ids)b::uuid[]
