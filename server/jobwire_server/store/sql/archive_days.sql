-- The days the archive has partitions for, with the partition's name, and whether a removal was begun and not ended.
SELECT c.relname AS partition, (regexp_match(c.relname, '^archive_(\d{8})$'))[1]::date AS day, i.inhdetachpending AS leaving
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'jobwire.archive'::regclass
