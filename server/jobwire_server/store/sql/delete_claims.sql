-- Removes claims of one queue all of whose deliveries are settled.
DELETE FROM jobwire.claim WHERE queue = %(queue)s AND token = ANY (%(tokens)b::uuid[])
