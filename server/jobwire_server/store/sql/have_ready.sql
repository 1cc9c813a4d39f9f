-- Which of the queues have tickets, and which have suspects: the idle poll, one statement for all.
SELECT q.name,
    EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = q.name AND NOT r.suspect) AS ready,
    EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = q.name AND r.suspect) AS suspect
FROM unnest(%(queues)b::text[]) AS q (name)
