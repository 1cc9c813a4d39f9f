-- Has a due time of a schedule had its turn: the next one is set, and what became of this one is noted. Returns the schedule if that is so; nothing if
-- the time was another's, who holds the row or has moved it, if the schedule is not as it was any more, or if by the clock here the time has not come.
UPDATE jobwire.schedule SET next_run_at = %(next)s::timestamptz,
    look_at = CASE WHEN %(pause_ms)s::int8 IS NULL THEN %(next)s::timestamptz ELSE clock_timestamp() + %(pause_ms)s::int8 * interval '1 millisecond' END,
    runs = runs + %(runs)s::int4,
    last_due_at = coalesce(%(last_due)s::timestamptz, last_due_at),
    last_run_at = CASE WHEN %(runs)s::int4 > 0 THEN clock_timestamp() ELSE last_run_at END,
    last_job_id = coalesce(%(job_id)s::uuid, last_job_id),
    last_error = coalesce(%(error)s::text, last_error),
    last_error_at = CASE WHEN %(error)s::text IS NULL THEN last_error_at ELSE clock_timestamp() END
WHERE id = (
    SELECT s.id FROM jobwire.schedule s
    WHERE s.id = %(id)s AND s.revision = %(revision)s AND s.next_run_at = %(due)s AND greatest(s.next_run_at, %(last_due)s::timestamptz) <= clock_timestamp()
    FOR UPDATE SKIP LOCKED)
RETURNING id
