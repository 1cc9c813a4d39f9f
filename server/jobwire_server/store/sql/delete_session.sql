-- Ends a session, if its epoch (and its counter, if given) still are as the caller saw them. Its claims are ended by later statements of the same transaction.
DELETE FROM jobwire.session WHERE id = %(id)s AND (%(epoch)s::int8 IS NULL OR epoch = %(epoch)s::int8) AND (%(renewals)s::int8 IS NULL OR renewals = %(renewals)s::int8)
RETURNING owner
