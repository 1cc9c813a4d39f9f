-- A session's owner and epoch.
SELECT owner, epoch FROM jobwire.session WHERE id = %(id)s
