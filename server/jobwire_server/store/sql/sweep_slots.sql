-- Has the gates of a queue see to slots whose jobs are not live, looking at so many; returns up to where it looked (null: to the end), and how many it found.
SELECT id, events FROM jobwire.sweep_slots(%(queue)s, %(after)s, %(limit)s)
