-- Whether a queue has tickets in some ranks, and whether it has suspects there.
SELECT EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = %(queue)s AND r.rank BETWEEN %(low)s::int4 AND %(high)s::int4 AND NOT r.suspect) AS ready,
    EXISTS (SELECT FROM jobwire.ready r WHERE r.queue = %(queue)s AND r.rank BETWEEN %(low)s::int4 AND %(high)s::int4 AND r.suspect) AS suspect
