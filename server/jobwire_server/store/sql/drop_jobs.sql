-- Removes live jobs of one queue for good, whose tickets have been taken.
DELETE FROM jobwire.live_job j WHERE j.queue = %(queue)s AND j.id = ANY (%(ids)b::uuid[])
