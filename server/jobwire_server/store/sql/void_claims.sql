-- Removes all claims; returns how many.
WITH gone AS (DELETE FROM jobwire.claim RETURNING token) SELECT count(*)::int AS claims FROM gone
