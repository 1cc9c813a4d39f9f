-- Ends all sessions; returns how many. Waits for claims under way, which then are seen by the next statement.
WITH gone AS (DELETE FROM jobwire.session RETURNING id) SELECT count(*)::int AS sessions FROM gone
