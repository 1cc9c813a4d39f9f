-- Removes guards that keep nobody away any more, looking at so many; returns up to where it looked (null: to the end), and how many went.
SELECT queue, kind, key, gone FROM jobwire.sweep_guards(%(queue)s, %(kind)s::int2, %(key)s, %(limit)s)
