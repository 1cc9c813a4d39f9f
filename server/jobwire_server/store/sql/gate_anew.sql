-- Has the jobs of a queue pass its gates anew, after these have changed; its live jobs and its row are locked.
SELECT jobwire.gate_anew(%(queue)s)
