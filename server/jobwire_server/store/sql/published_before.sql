-- The payloads of jobs that Publish met, live or finished, the live and newest first.
SELECT j.id, j.data FROM jobwire.live_job j WHERE j.queue = %(queue)s AND j.id = ANY (%(ids)b::uuid[])
UNION ALL
(SELECT a.id, a.data FROM jobwire.archive a WHERE a.queue = %(queue)s AND a.id = ANY (%(ids)b::uuid[]) ORDER BY a.finished_at DESC)
