-- Carries the dead letters that are due for one queue over to it; see migrations/0007_dead_letters.sql.
SELECT target, taken, refused, gated FROM jobwire.carry_letters(%(limit)s, %(hours)s)
