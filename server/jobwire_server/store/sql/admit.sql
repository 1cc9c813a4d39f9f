-- Has the gates of a queue let in who is next, after looking at what befell up to so many jobs.
SELECT tickets, more FROM jobwire.admit(%(queue)s, %(limit)s)
