-- Keeps every writer of live jobs out until the end of the transaction.
LOCK TABLE jobwire.live_job IN SHARE ROW EXCLUSIVE MODE
