-- Deletes a schedule; its jobs stay. Returns it if there was one.
DELETE FROM jobwire.schedule WHERE name = %(name)s RETURNING id
