-- How many jobs of a queue wait, ready or scheduled. Each kind is counted up to the bound, so that no backlog makes it dear.
SELECT (SELECT count(*) FROM (SELECT FROM jobwire.ready WHERE queue = %(queue)s LIMIT %(most)s) r)
    + (SELECT count(*) FROM (SELECT FROM jobwire.scheduled WHERE queue = %(queue)s LIMIT %(most)s) s)
    + (SELECT count(*) FROM (SELECT FROM jobwire.blocked WHERE queue = %(queue)s LIMIT %(most)s) b)
    + (SELECT count(*) FROM (SELECT FROM jobwire.gate_event WHERE queue = %(queue)s AND kind = 1 LIMIT %(most)s) e) AS waiting
