-- What stands in the way of deleting a queue: live jobs, sessions subscribed to it, schedules, and queues or jobs whose dead letters go there.
SELECT EXISTS (SELECT FROM jobwire.live_job j WHERE j.queue = %(queue)s) AS live,
    (SELECT count(*)::int FROM jobwire.session s WHERE %(queue)s = ANY (s.queues)) AS sessions,
    ARRAY(SELECT q.name FROM jobwire.queue q WHERE q.dead_letter = %(queue)s AND q.name <> %(queue)s ORDER BY q.name LIMIT 10) AS dead_letter_of,
    ARRAY(SELECT s.name FROM jobwire.schedule s WHERE s.queue = %(queue)s ORDER BY s.name LIMIT 10) AS schedules
