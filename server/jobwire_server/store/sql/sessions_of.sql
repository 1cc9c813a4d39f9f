-- Which sessions some claims of one queue were made for.
SELECT token, session_id FROM jobwire.claim WHERE queue = %(queue)s AND token = ANY (%(tokens)b::uuid[])
