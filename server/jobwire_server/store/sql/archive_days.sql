-- The archive's tables by their days: whether each is a partition, and whether its removal was begun and not ended. One that is none is what a crash left.
SELECT (regexp_match(c.relname, '^archive_(\d{8})$'))[1]::date AS day, i.inhrelid IS NOT NULL AS attached, coalesce(i.inhdetachpending, false) AS leaving
FROM pg_class parent
JOIN pg_class c ON c.relnamespace = parent.relnamespace AND c.relkind = 'r' AND c.relname ~ '^archive_\d{8}$'
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = parent.oid
WHERE parent.oid = 'jobwire.archive'::regclass
