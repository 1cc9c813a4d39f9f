"""Of each key one job runs at a time, and where its order is strict, one after the other as they were published.

A job is certainly behind another if it stood behind it in the same call, or was sent when the other had been answered:
those that were on their way side by side may be stored either way. It may then not be claimed before the other has its
outcome, and not at all if that failed for good: in a run nobody skips or retries those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import inf

from jobwire_server.domain.queues import Policy

from .book import Book
from .facts import Job
from .report import Report
from .spans import beyond

_ONE_RUNS = (Policy.SINGLETON, Policy.STATELY, Policy.EXCLUSIVE, Policy.KEY_STRICT_FIFO)


def check(book: Book, report: Report) -> None:
    """Invariants `keys` and `key order`."""
    for queue, jobs in book.queues.items():
        policy = book.rules(queue).policy
        if policy not in _ONE_RUNS:
            continue
        for key, mine in _by_key(jobs.values()).items():
            for lease, count in beyond(book, (lease for job in mine for lease in job.leases), 1):
                message = f"{count} jobs of key {key!r} run at once"
                report.add("keys", message, job=lease.job.id, handle=lease.handle, t=lease.claim.t)
            if policy is Policy.KEY_STRICT_FIFO:
                _in_order(book, key, mine, report)


def held_up(book: Book, job: Job) -> bool:
    """Whether it waits, and may, behind one of its key that failed for good."""
    if job.live != "blocked" or book.rules(job.queue).policy is not Policy.KEY_STRICT_FIFO:
        return False
    return job.key in book.failed_keys(job.queue)


def _by_key(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        found[job.key].append(job)
    return found


def _in_order(book: Book, key: str, jobs: Sequence[Job], report: Report) -> None:
    for job in jobs:
        first = min((lease.claim.t for lease in job.leases), default=None)
        if first is None or book.disturbances.undone(first):
            continue
        for other in jobs:
            if _behind(job, other) and first < _left(other):
                failed = other.outcome is not None and other.outcome.state == "failed"
                what = "has failed for good" if failed else "was not finished"
                message = f"claimed behind {other.id} of key {key!r}, which {what}"
                report.add("key order", message, job=job.id, t=first)
                break


def _behind(job: Job, other: Job) -> bool:
    if job.asked is None or other.asked is None or job.published is None:
        return False
    if job.asked[0] == other.asked[0]:
        return job.asked[1] > other.asked[1]
    return other.answered is not None and other.answered <= job.published


def _left(job: Job) -> float:
    """When it made way for those behind it; at once if it is gone without a trace, which is another's complaint."""
    if job.outcome is None:
        return inf if job.live else -inf
    return inf if job.outcome.state == "failed" else job.outcome.finished
