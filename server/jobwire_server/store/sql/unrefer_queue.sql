-- Whatever refers to a queue that is to be deleted by force refers to it no more.
UPDATE jobwire.queue q SET dead_letter = NULL, updated_at = clock_timestamp() WHERE q.dead_letter = %(queue)s
