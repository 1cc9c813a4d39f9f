-- Removes the turns of a queue that has no jobs now; returns how many.
SELECT jobwire.sweep_turns(%(queue)s, %(limit)s) AS gone
