-- Has nothing of a queue be claimed any more, or again.
UPDATE jobwire.queue SET paused = %(paused)s, updated_at = clock_timestamp() WHERE name = %(name)s RETURNING name
