-- Stores jobs one after the other and minds their keys; returns by their places what was not stored, why, and which job it met.
SELECT n, outcome, met FROM jobwire.publish_keyed(%(queue)s, %(jobs)s::jsonb, %(hours)s) WHERE outcome > 0
