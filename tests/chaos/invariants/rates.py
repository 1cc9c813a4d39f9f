"""Within any period no more jobs start than the rate of their queue or group says.

A start is a claim, by the database's clock, delivered or not. When a delivery arrives says less: what was claimed
periods apart arrives in one moment if a link stands still meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from tests.chaos.history import Rate

from .book import Book
from .facts import Job, Lease
from .report import Report

_ROUNDING = 0.001


def check(book: Book, report: Report) -> None:
    """Invariants `rate` and `group rate`."""
    for queue, jobs in book.queues.items():
        rules = book.rules(queue)
        if rules.rate is not None:
            _check(book, "rate", f"queue {queue}", jobs.values(), rules.rate, report)
        if rules.group_rate is not None:
            groups: dict[str, list[Job]] = defaultdict(list)
            for job in jobs.values():
                if job.group:
                    groups[job.group].append(job)
            for group, mine in groups.items():
                _check(book, "group rate", f"group {group}", mine, rules.group_rate, report)


def _check(book: Book, invariant: str, whose: str, jobs: Iterable[Job], rate: Rate, report: Report) -> None:
    starts: list[Lease] = [lease for job in jobs for lease in job.leases if not book.disturbances.undone(lease.claim.t)]
    starts.sort(key=lambda lease: lease.claim.t)
    for first, lease in zip(starts, starts[rate.starts :], strict=False):
        apart = lease.claim.t - first.claim.t
        if apart < rate.seconds - _ROUNDING:
            message = (
                f"{rate.starts + 1} starts of {whose} within {apart:.3f} s, {rate.starts} may in {rate.seconds:g} s"
            )
            report.add(invariant, message, job=lease.job.id, handle=lease.handle, t=lease.claim.t)
