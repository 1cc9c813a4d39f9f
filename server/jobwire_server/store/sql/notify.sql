-- Tells whoever listens on these channels, and leaves a letter for a server that cannot listen.
WITH message AS MATERIALIZED (
    SELECT m.channel, m.payload, m.n FROM unnest(%(channels)b::text[], %(payloads)b::text[]) WITH ORDINALITY AS m (channel, payload, n)
), posted AS (
    INSERT INTO jobwire.letter (channel, payload) SELECT m.channel, m.payload FROM message m JOIN jobwire.letterbox b ON b.channel = m.channel ORDER BY m.n
)
SELECT pg_notify(channel, payload) FROM message ORDER BY n
