-- Opens a session at epoch 1, owned by this replica.
INSERT INTO jobwire.session (id, epoch, grace_ms, owner, worker, queues, max_in_flight, shares)
VALUES (%(id)s, 1, %(grace_ms)s, %(replica)s, %(worker)s, %(queues)b, %(max_in_flight)s, %(shares)s::jsonb)
