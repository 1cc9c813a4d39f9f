"""At the gates of keys and groups nothing is left of jobs that are finished, and nobody waits who could run.

Judged in the end, when workers had time to take whatever there was.
"""

from __future__ import annotations

from .book import Book
from .keys import held_up
from .report import Report


def check(book: Book, report: Report) -> None:
    """Invariants `left behind` and `stuck`."""
    for table, queue, job_id in book.end.left_behind:
        report.add("left behind", f"a row of {table} of queue {queue}, whose job is finished or gone", job=job_id)
    for job in book.jobs():
        if job.live != "blocked":
            continue
        if held_up(book, job):
            report.held_up += 1
        else:
            report.add("stuck", f"blocked in queue {job.queue}, and nothing runs in its way", job=job.id)
