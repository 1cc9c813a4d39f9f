-- Empties the letterbox of one server, which is put up if there is none, and clears away what was left for servers that are gone.
WITH box AS (
    INSERT INTO jobwire.letterbox AS b (channel) VALUES (%(channel)s)
    ON CONFLICT (channel) DO UPDATE SET emptied_at = clock_timestamp() WHERE b.emptied_at < clock_timestamp() - interval '10 seconds'
), abandoned AS (
    DELETE FROM jobwire.letterbox WHERE channel <> %(channel)s AND emptied_at < clock_timestamp() - interval '1 minute'
), gone AS (
    DELETE FROM jobwire.letter WHERE channel = %(channel)s OR posted_at < clock_timestamp() - interval '1 minute' RETURNING n, channel, payload
)
SELECT payload FROM gone WHERE channel = %(channel)s ORDER BY n
