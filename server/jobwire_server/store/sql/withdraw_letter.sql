-- Takes the dead letter of a job back if nobody has begun with it; returns whether it could.
SELECT jobwire.withdraw_letter(%(queue)s, %(id)s, %(failed_at)s, %(target)s) AS withdrawn
