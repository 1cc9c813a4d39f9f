-- Writes dead letters of failed jobs of a queue for another one, and notes with the jobs that they went there.
WITH sent AS (
    UPDATE jobwire.archive a SET dead_letter = %(target)s FROM unnest(%(ids)b::uuid[], %(times)b::timestamptz[]) AS i (id, failed_at)
    WHERE a.queue = %(queue)s AND a.id = i.id AND a.finished_at = i.failed_at AND a.state = 6
    RETURNING a.*
)
INSERT INTO jobwire.dead_letter (queue, id, failed_at, target, letter, rank, headers, data, key, group_id, tier, origin)
SELECT queue, id, finished_at, %(target)s, jobwire.letter_id(queue, id, finished_at), rank, headers, data, key, group_id, tier,
    jobwire.origin_of(queue, id, created_at, finished_at, attempt, errors -> -1, NULL, origin)
FROM sent
ON CONFLICT DO NOTHING
