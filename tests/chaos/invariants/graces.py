"""What a lost session held is delivered again within the grace that was stated for such a loss.

Counted from the last moment at which the session may have been well: its fault's beginning, its last sign of life, the
end of what else disturbed the service meanwhile, since then all counts begin anew. And only judged where the job was
passed over: a job that nobody was free to take, or behind others in line, is not late.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from .book import Book, Job, Lease
from .causes import Cause
from .report import Report

SLACK = 15.0
"""Seconds for what a loaded system takes beyond a grace."""
_HEARTBEATS = 4
_RENEWALS = 4
_LOOKED_AT = 10_000


class _Claims:
    """The claims of a queue in the order of time, to find out who was served instead."""

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self._leases = sorted((lease for job in jobs.values() for lease in job.leases), key=lambda lease: lease.claim.t)
        self._times = [lease.claim.t for lease in self._leases]

    def passed_over(self, job: Job, start: float, end: float) -> bool:
        """Whether a job that comes after `job` was claimed in that time."""
        order = _order(job)
        place = bisect_left(self._times, start)
        for lease in self._leases[place : place + _LOOKED_AT]:
            if lease.claim.t >= end:
                return False
            other = _order(lease.job)
            if other is not None and order is not None and other > order:
                return True
        return False


def _order(job: Job) -> tuple[int, int] | None:
    return (-job.outcome.priority, job.outcome.seq) if job.outcome is not None else None


def check(book: Book, causes: Mapping[Lease, Cause], report: Report) -> None:
    """Invariant `late`, and the gaps by fault."""
    claims: dict[str, _Claims] = {}
    for lease, cause in causes.items():
        following = lease.job.after(lease)
        if cause.fault is None or following is None:
            continue
        lost = max(cause.fault.t, lease.arrived)
        again = next((other for other in lease.job.leases if other.attempt > lease.attempt and other.stream), None)
        if again is not None:
            report.gaps[cause.name].append(again.arrived - lost)
        due = _due(book, lease, following, lost)
        if following.claim.t <= due:
            continue
        queue = lease.job.queue
        if queue not in claims:
            claims[queue] = _Claims(book.queues[queue])
        if claims[queue].passed_over(lease.job, due, following.claim.t):
            report.add(
                "late",
                f"{cause.name} at {lost:.3f}, due again by {due:.3f}, claimed at {following.claim.t:.3f}",
                job=lease.job.id,
                handle=lease.handle,
                session=lease.claim.session,
                t=following.claim.t,
            )


def _due(book: Book, lease: Lease, following: Lease, lost: float) -> float:
    claimed = following.claim.t
    session = book.sessions.get(lease.claim.session)
    stream = lease.stream
    assert stream is not None
    streams = [stream]
    if session is not None:
        streams += [other for other in session.streams if stream.opened < other.opened <= claimed]
        lost = max(lost, session.last_sign(claimed), streams[-1].opened)
    asked, terms = streams[-1].asked, book.terms
    grace = asked.grace + _HEARTBEATS * asked.heartbeat
    disturbed = book.disturbances.service.within(lost, claimed, aftermath=0.0)
    if disturbed:
        lost = max(lost, *(min(fault.until, claimed) for fault in disturbed))
        grace = max(grace, terms.owner_grace + _RENEWALS * terms.renew_interval)
    if streams[-1].drained or book.disturbances.restarts.within(lost, claimed):
        grace = max(grace, terms.drain_grace + _RENEWALS * terms.renew_interval)
    if lease.job.outcome is not None and lease.job.outcome.loss_count:
        # A suspect waits for a session that is idle.
        grace += SLACK
    return lost + grace + SLACK
