-- A page of one queue's jobs in some states, by descending id.
SELECT * FROM jobwire.job_record
WHERE queue = %(queue)s AND state = ANY (%(states)b::int4[]) AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
ORDER BY id DESC LIMIT %(limit)s
