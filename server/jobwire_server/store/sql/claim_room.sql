-- How many jobs of a queue with limits may be claimed now, and how soon more, in milliseconds, if the rate is why there are not more. Locks the queue's row.
SELECT room, more_in_ms FROM jobwire.claim_room(%(queue)s, %(want)s)
