-- Has those who store a job of one key of one queue unless there is one come one after the other, until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('jobwire upsert ' || %(queue)s || ' ' || %(key)s, 0))
