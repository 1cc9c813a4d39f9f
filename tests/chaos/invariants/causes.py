"""Why leases ended: what a redelivery, or an Ack that found its lease lost, must have for a cause.

A lease ends by its worker's word (fail, release, the session's close), by its time limit, because it never arrived, or
with its session. The last needs a fault: one that hit the worker, its link, a server or the database between the last
sign of life that a server answered and the end. An orderly restart of a server is none, and has a name of its own here.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.chaos.history import Fault

from .book import Book
from .disturbances import name_of
from .facts import FAILS, REFUSED, SETTLED, SKEW, Lease, Session
from .report import Report

RACE = 0.2
"""Seconds before a resume in which an event may arrive that the client did not come to read."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a lease ended: in a word, and by which fault, if it was one."""

    name: str
    fault: Fault | None = None


UNEXPLAINED = Cause("unexplained")
DEPLOY = Cause("deploy")


def check(book: Book, report: Report) -> dict[Lease, Cause]:
    """Invariants `unexplained` and `deploy`; returns the causes by which leases with a successor ended."""
    causes: dict[Lease, Cause] = {}
    for job in book.jobs():
        before: Lease | None = None
        for lease in job.leases:
            if lease.stream is None:
                continue
            if before is not None:
                report.redeliveries[causes[before].name] += 1
            following, end = job.after(lease), ended_by(lease)
            if end is not None:
                cause = _cause(book, lease, following, end)
                if cause in (UNEXPLAINED, DEPLOY):
                    _complain(lease, following, end, cause, report)
                causes[lease] = cause
            before = lease
    return causes


def ended_by(lease: Lease) -> float | None:
    """By when the lease had ended otherwise than by an outcome of its own, as far as anybody knows."""
    refused = (said.answered for said in lease.statements if said.status in REFUSED)
    ends = [min(refused, default=None), lease.listed_lost if not lease.won else None]
    following = lease.job.after(lease)
    if following is not None:
        ends.append(following.claim.t)
    return min((end for end in ends if end is not None), default=None)


def _complain(lease: Lease, following: Lease | None, end: float, cause: Cause, report: Report) -> None:
    report.unexplained += 1
    what = f"attempt {following.attempt} was claimed" if following is not None else "the lease was over"
    why = "after nothing but orderly restarts" if cause is DEPLOY else "without a cause"
    report.add(
        cause.name,
        f"attempt {lease.attempt} arrived, and {what} {why}",
        job=lease.job.id,
        handle=lease.handle,
        session=lease.claim.session,
        t=end,
    )


def _cause(book: Book, lease: Lease, following: Lease | None, end: float) -> Cause:
    if book.disturbances.restored(lease.claim.t, end):
        return Cause("restored")
    if lease.won and following is None:
        # Its own outcome shows that the lease held, and a repeated Ack is told so.
        return UNEXPLAINED
    session = book.sessions.get(lease.claim.session)
    said = _by_word(book, lease, session, following, end)
    if said is not None:
        return said
    outcome = lease.job.outcome
    if following is None and outcome is not None and outcome.state == "cancelled":
        return Cause("cancelled")
    if _limit_passed(book, lease, following, end):
        return Cause("time limit")
    if _never_read(lease, session, end):
        return Cause("not received before the resume")
    return _by_fault(book, lease, session, end)


def _by_word(book: Book, lease: Lease, session: Session | None, following: Lease | None, end: float) -> Cause | None:
    unanswered = None
    for statement in lease.statements:
        if statement.what not in FAILS and statement.what != "release":
            continue
        if statement.t > end + SKEW:
            continue
        name = "failed" if statement.what in FAILS else "released"
        if statement.status in SETTLED:
            return _why_released(book, lease, session, statement.t) if name == "released" else Cause(name)
        if statement.status is None:
            unanswered = name
    if unanswered == "failed" and following is not None and following.stream is not None:
        # Whether it was applied shows in the next delivery.
        unanswered = "failed" if following.retry_count > lease.retry_count else None
    if unanswered is not None:
        return Cause(unanswered)
    if session is not None and session.closed is not None and session.closed <= end + SKEW:
        return Cause("closed")
    return None


def _why_released(book: Book, lease: Lease, session: Session | None, t: float) -> Cause:
    """A worker may release as it likes; but if it stopped a handler for it, something must have told it to."""
    if (lease.job.id, lease.attempt) not in book.stopped or lease.told or session is None:
        return Cause("released")
    if session.quiet is not None and session.quiet <= t:
        return Cause("released")
    cause = _by_fault(book, lease, session, t)
    return DEPLOY if cause is DEPLOY else Cause("released")


def _limit_passed(book: Book, lease: Lease, following: Lease | None, end: float) -> bool:
    if following is not None and following.stream is not None and following.retry_count <= lease.retry_count:
        return False
    return limit_may_have_passed(book, lease, end)


def limit_may_have_passed(book: Book, lease: Lease, end: float) -> bool:
    """Whether the delivery's time limit passed before `end`; where an `extend` moved it, as the worker was told."""
    if any(said.what == "extend" for said in lease.statements) and any(why == "EXPIRED" for _, why in lease.told or ()):
        return True
    return end - lease.claim.t >= book.terms.expire_in - SKEW


def _never_read(lease: Lease, session: Session | None, end: float) -> bool:
    """Whether it arrived so shortly before a resume, or after it, that the client did not name it as held."""
    stream = lease.stream
    assert stream is not None
    for other in session.streams if session is not None else ():
        if (
            other.epoch > stream.epoch
            and other.opened <= end + SKEW
            and lease.handle not in other.asked.held
            and lease.arrived > other.asked.t - RACE
        ):
            return True
    return False


def _by_fault(book: Book, lease: Lease, session: Session | None, end: float) -> Cause:
    stream = lease.stream
    assert stream is not None
    start = min(lease.arrived, end) if session is None else session.last_sign(end)
    for timeline in (book.disturbances.of_client(stream.who), book.disturbances.service):
        faults = timeline.within(start, end)
        if faults:
            # The one at the time of the last sign of life; others may have come since.
            fault = min(faults, key=lambda one: abs(one.t - start))
            return Cause(f"lost: {name_of(fault)}", fault)
    return DEPLOY if book.disturbances.restarts.within(start, end) else UNEXPLAINED
