-- A page of the dead letters that were not taken when they were carried over, of one queue or all, by the jobs they come from.
SELECT queue, id, failed_at, target, key, tries, retry_at, refusal, met FROM jobwire.dead_letter d
WHERE tries > 0 AND (%(target)s::text IS NULL OR target = %(target)s)
    AND (queue, id, failed_at) > (%(after_queue)s::text COLLATE "C", %(after_id)s::uuid, %(after_time)s::timestamptz)
ORDER BY queue, id, failed_at LIMIT %(limit)s
