-- Writes down what an operator did. One that takes several transactions is the same row (`id`), as long as it is the same action.
WITH grown AS (
    UPDATE jobwire.action SET matched = matched + %(matched)s, changed = changed + %(changed)s
    WHERE id = %(id)s::int8 AND what = %(what)s AND actor = %(actor)s AND selection = %(selection)s::jsonb AND at > clock_timestamp() - interval '1 day'
    RETURNING id
), new AS (
    INSERT INTO jobwire.action (actor, what, queue, selection, matched, changed)
    SELECT %(actor)s, %(what)s, %(queue)s, %(selection)s::jsonb, %(matched)s, %(changed)s WHERE NOT EXISTS (SELECT FROM grown)
    RETURNING id
)
SELECT id FROM grown UNION ALL SELECT id FROM new
