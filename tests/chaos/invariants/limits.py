"""No more jobs of a queue run at once than its limit says, and no more of a group than its own.

A group whose jobs are of several tiers has the largest of their limits: each counts when its own job begins.
"""

from __future__ import annotations

from collections import defaultdict

from tests.chaos.history import Rules

from .book import Book
from .facts import Job, Lease
from .report import Report
from .spans import beyond


def check(book: Book, report: Report) -> None:
    """Invariants `active` and `group active`."""
    for queue, jobs in book.queues.items():
        rules = book.rules(queue)
        if rules.max_active is not None:
            leases = [lease for job in jobs.values() for lease in job.leases]
            _check(book, "active", f"queue {queue}", leases, rules.max_active, report)
        groups: dict[str, list[Job]] = defaultdict(list)
        for job in jobs.values():
            if job.group:
                groups[job.group].append(job)
        for group, mine in groups.items():
            most = _most(rules, mine)
            if most is not None:
                leases = [lease for job in mine for lease in job.leases]
                _check(book, "group active", f"group {group}", leases, most, report)


def _most(rules: Rules, jobs: list[Job]) -> int | None:
    limits = {rules.tiers.get(job.tier, rules.group_max_active) for job in jobs}
    return None if None in limits else max(limit for limit in limits if limit is not None)


def _check(book: Book, invariant: str, whose: str, leases: list[Lease], most: int, report: Report) -> None:
    for lease, count in beyond(book, leases, most):
        message = f"{count} jobs of {whose} run at once, {most} may"
        report.add(invariant, message, job=lease.job.id, handle=lease.handle, t=lease.claim.t)
