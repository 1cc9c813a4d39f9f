"""Every acknowledged job has one outcome, no job has two, and none comes from nowhere."""

from __future__ import annotations

from .book import Book
from .facts import Job
from .keys import held_up
from .report import Report


def check(book: Book, report: Report) -> None:
    """Invariants `lost`, `double outcome` and `stranger`."""
    for job in book.jobs():
        report.published += job.published is not None
        report.acknowledged += job.answered is not None
        report.outcomes += (job.outcome is not None) + job.more
        _lost(book, job, report)
        _double(job, report)
        if job.published is None:
            report.add("stranger", "a job that nobody published", job=job.id)
        elif job.outcome is not None and not _by_a_lease(job) and not book.disturbances.undone(job.outcome.finished):
            message = f"{job.outcome.state} by a delivery that no claim made"
            report.add("stranger", message, job=job.id, t=job.outcome.finished)
    for arrival in book.unclaimed:
        if book.job(arrival.queue, arrival.job).published is None:
            continue  # said above
        report.add("two leases", "a delivery without a claim", job=arrival.job, handle=arrival.handle, t=arrival.t)


def _lost(book: Book, job: Job, report: Report) -> None:
    if job.answered is None or job.outcome is not None or book.disturbances.undone(job.answered):
        return
    if held_up(book, job):
        return
    report.lost += 1
    where = f"is still {job.live}" if job.live else "is gone"
    report.add("lost", f"published, acknowledged, and in the end it {where}", job=job.id, t=job.answered)


def _double(job: Job, report: Report) -> None:
    outcome = job.outcome
    if outcome is None or not (job.more or job.live):
        return
    report.double_outcomes += 1
    also = f"{job.more + 1} outcomes" if job.more else f"an outcome, and is {job.live}"
    report.add("double outcome", f"the job has {also}", job=job.id, t=outcome.finished)


def _by_a_lease(job: Job) -> bool:
    outcome = job.outcome
    assert outcome is not None
    if not outcome.token:
        return outcome.state != "completed"
    return any(lease.won and lease.attempt == outcome.attempt for lease in job.leases)
