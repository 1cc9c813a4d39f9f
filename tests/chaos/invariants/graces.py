"""What a lost session held is delivered again within the grace that was stated for such a loss, and not before.

Not before: a session whose stream broke waits for its resume, and one that is silent is not lost before the third
heartbeat without an answer. What the server had hardly sent when the stream broke is another matter: it goes back at
once.

Not after: counted from the last moment at which the session may have been well, which is its fault's beginning, its
last sign of life, or the end of what else disturbed the service meanwhile, since then all counts begin anew. And only
judged where the job was passed over: a job that nobody was free to take, or behind others in line, is not late.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from .book import Book
from .causes import Cause, ended_by
from .facts import SKEW, Job, Lease
from .report import Report

SLACK = 15.0
"""Seconds for what a loaded system takes beyond a grace."""
_UNDER_WAY = 1.0
"""Seconds for which a server may not know yet that a delivery was handed over."""
_MISSED = 3
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
    """Invariants `early` and `late`, and the gaps by fault."""
    claims: dict[str, _Claims] = {}
    for lease, cause in causes.items():
        if cause.fault is None:
            continue
        _early(book, lease, cause, report)
        following = lease.job.after(lease)
        if following is None:
            continue
        lost = max(cause.fault.t, lease.claim.t)
        again = next((other for other in lease.job.leases if other.attempt > lease.attempt and other.stream), None)
        if again is not None:
            report.gaps[cause.name].append(again.arrived - lost)
        queue = lease.job.queue
        if book.rules(queue).gated:
            # It may be the turn of another job of its key or group.
            continue
        due = _due(book, lease, following, lost)
        if following.claim.t <= due:
            continue
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


def _early(book: Book, lease: Lease, cause: Cause, report: Report) -> None:
    """Complains if the lease was over before its session could be."""
    end = ended_by(lease)
    session = book.sessions.get(lease.claim.session)
    stream = lease.stream
    if end is None or session is None or stream is None:
        return
    last = max((other for other in session.streams if other.opened < end), key=lambda other: other.epoch)
    broken = min(end, last.ended if last.ended is not None else end)
    disturbances = book.disturbances
    for timeline in (disturbances.of_client(stream.who), disturbances.service, disturbances.restarts):
        broken = min([broken, *(fault.t for fault in timeline.within(last.opened, end))])
    broken = max(broken, last.opened)
    if lease.arrived > broken - _UNDER_WAY:
        return
    earliest = min(broken + last.asked.grace, session.last_sign(end) + _MISSED * last.asked.heartbeat)
    if end < earliest - SKEW:
        report.add(
            "early",
            f"{cause.name} at {broken:.3f}, to be waited for until {earliest:.3f}, given back by {end:.3f}",
            job=lease.job.id,
            handle=lease.handle,
            session=session.id,
            t=end,
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
