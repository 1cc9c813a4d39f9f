-- Notes that live jobs of one queue, whose tickets have been taken, wait for no time any more.
UPDATE jobwire.live_job j SET start_after = least(j.start_after, statement_timestamp()) WHERE j.queue = %(queue)s AND j.id = ANY (%(ids)b::uuid[])
