-- Notes that jobs of a schedule's turn were not stored, since their queue has a job that stands in their way.
UPDATE jobwire.schedule SET runs = runs - %(jobs)s, last_job_id = %(job_id)s, last_error = %(error)s, last_error_at = clock_timestamp() WHERE id = %(id)s
