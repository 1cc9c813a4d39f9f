-- Removes what a queue's gates have noted, once its jobs are gone.
WITH no_event AS (
    DELETE FROM jobwire.gate_event t WHERE t.queue = %(queue)s
), no_slot AS (
    DELETE FROM jobwire.slot t WHERE t.queue = %(queue)s
), no_rate AS (
    DELETE FROM jobwire.rate t WHERE t.queue = %(queue)s
), no_turn AS (
    DELETE FROM jobwire.turn t WHERE t.queue = %(queue)s
), no_turn_reached AS (
    DELETE FROM jobwire.turn_reached t WHERE t.queue = %(queue)s
)
DELETE FROM jobwire.guard t WHERE t.queue = %(queue)s
