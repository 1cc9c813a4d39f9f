-- One job, live or finished, in one snapshot. The newest of several is returned.
SELECT * FROM jobwire.job_record WHERE id = %(id)s AND queue = ANY (%(queues)b::text[]) ORDER BY finished_at DESC NULLS FIRST, created_at DESC LIMIT 1
