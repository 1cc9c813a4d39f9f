-- Those of the ids that Publish would not store again: of live jobs, and of jobs that have finished lately.
SELECT j.id FROM jobwire.live_job j WHERE j.queue = %(queue)s AND j.id = ANY (%(ids)b::uuid[])
UNION ALL
SELECT a.id FROM jobwire.archive a WHERE a.queue = %(queue)s AND a.id = ANY (%(ids)b::uuid[]) AND a.finished_at > clock_timestamp() - %(hours)s * interval '1 hour'
