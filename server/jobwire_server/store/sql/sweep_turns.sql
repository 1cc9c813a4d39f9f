-- Removes turns of a queue that tell nothing any more; returns how many.
SELECT jobwire.sweep_turns(%(queue)s, %(limit)s) AS gone
