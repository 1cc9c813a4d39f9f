"""A job has at most one valid lease at any time, and a delivery is what its claim says.

Attempts are the order of a job's leases: the one before must have ended before the next can begin. So each attempt is
claimed once, and they rise with time.
"""

from __future__ import annotations

from .book import SKEW, Book, Job
from .report import Report


def check(book: Book, report: Report) -> None:
    """Invariants `two leases` and `handlers`."""
    report.claims, report.deliveries = book.leases, book.deliveries
    for lease in book.double_claims:
        if not book.disturbances.undone(lease.claim.t):
            report.add("two leases", "a token was claimed twice", job=lease.job.id, t=lease.claim.t)
    for job in book.jobs():
        if len(job.leases) > 1:
            _in_turn(book, job, report)
    for arrival in book.twice:
        report.add("two leases", "a handle arrived twice", job=arrival.job, handle=arrival.handle, t=arrival.t)
    for arrival, lease in book.mismatched:
        stream = arrival.stream
        got = f"attempt {arrival.attempt} of {arrival.job}" + (
            f" in epoch {stream.epoch} of {stream.session}" if stream else ""
        )
        claim = lease.claim
        said = f"attempt {lease.attempt} of {lease.job.id} in epoch {claim.epoch} of {claim.session}"
        report.add(
            "two leases",
            f"delivered as {got}, claimed as {said}",
            job=arrival.job,
            handle=arrival.handle,
            session=claim.session,
            t=arrival.t,
        )
    for (job_id, attempt), starts in book.starts.items():
        if starts > 1:
            report.add("handlers", f"the handler of attempt {attempt} started {starts} times", job=job_id)


def _in_turn(book: Book, job: Job, report: Report) -> None:
    for before, lease in zip(job.leases, job.leases[1:], strict=False):
        if book.disturbances.undone(before.claim.t) or book.disturbances.undone(lease.claim.t):
            continue
        if before.attempt == lease.attempt:
            message = f"attempt {lease.attempt} was claimed twice"
        elif lease.claim.t < before.claim.t - SKEW:
            message = f"attempt {lease.attempt} was claimed before attempt {before.attempt}"
        else:
            continue
        report.add("two leases", message, job=job.id, handle=lease.handle, session=lease.claim.session, t=lease.claim.t)
