-- The queues that have slots or turns.
SELECT q.name FROM jobwire.queue q WHERE q.gated OR EXISTS (SELECT FROM jobwire.turn t WHERE t.queue = q.name)
