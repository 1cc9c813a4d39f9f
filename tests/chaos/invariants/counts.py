"""What is counted against a job is its handler's fault, or its worker's.

A retry is used up by a `fail` that was applied and by a time limit that really passed. A `fail` without an answer may
count or not, and so may a limit that passed if something else ended the lease first. A loss is counted only if the
delivery is proven to have been received and something befell its worker meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf

from jobwire_server.domain.limits import POISON_LOSSES
from tests.chaos.history import Outcome

from .book import FAILS, SETTLED, Book, Job, Lease
from .causes import limit_may_have_passed
from .report import Report


def check(book: Book, report: Report) -> None:
    """Invariant `wrongly counted`."""
    for job in book.jobs():
        outcome = job.outcome
        if outcome is None or any(book.disturbances.restored(lease.claim.t, outcome.finished) for lease in job.leases):
            continue
        plain = outcome.state == "completed" and not outcome.retry_count and not outcome.loss_count
        if plain and len(job.leases) == 1:
            continue
        _retries(book, job, outcome, report)
        if outcome.loss_count:
            _losses(book, job, outcome, report)
        if outcome.state == "failed":
            _failed(book, job, outcome, report)


def _end(lease: Lease) -> float:
    following = lease.job.after(lease)
    if following is not None:
        return following.claim.t
    return lease.job.outcome.finished if lease.job.outcome is not None else inf


def _failures(book: Book, lease: Lease) -> tuple[int, int]:
    """How many retries the lease has used up at least, and at most."""
    settling = [said for said in lease.statements if said.settles]
    only_fails = all(said.what in FAILS for said in settling)
    fails = [said for said in settling if said.what in FAILS]
    if any(said.status == "APPLIED" or (only_fails and said.status in SETTLED) for said in fails):
        return 1, 1
    if any(said.status == "APPLIED" for said in settling):
        return 0, 0
    maybe = any(said.status is None or said.status in SETTLED for said in fails)
    return 0, int(maybe or limit_may_have_passed(book, lease, _end(lease)))


def _retries(book: Book, job: Job, outcome: Outcome, report: Report) -> None:
    least = most = 0
    for lease in job.leases:
        # The failure that ends a job uses up no retry.
        if lease.attempt < outcome.attempt or outcome.state == "cancelled":
            low, high = _failures(book, lease)
            least, most = least + low, most + high
    if not least <= outcome.retry_count <= most:
        report.retries_wrong += max(0, outcome.retry_count - most)
        expected = f"{least}" if least == most else f"{least} to {most}"
        _add(job, outcome, f"{outcome.retry_count} retries used up, {expected} runs failed", report)


def _losses(book: Book, job: Job, outcome: Outcome, report: Report) -> None:
    suffered = sum(_suffered(book, lease) for lease in job.leases)
    if outcome.loss_count > suffered:
        report.losses_wrong += outcome.loss_count - suffered
        _add(job, outcome, f"{outcome.loss_count} losses counted, {suffered} of its workers suffered a fault", report)


def _suffered(book: Book, lease: Lease) -> bool:
    """Whether the loss of this delivery may be counted: received, proven so, and its worker was hit."""
    stream = lease.stream
    if stream is None:
        return False
    end = _end(lease)
    return _proven(book, lease, end) and bool(book.disturbances.of_client(stream.who).within(lease.arrived, end))


def _proven(book: Book, lease: Lease, end: float) -> bool:
    session = book.sessions.get(lease.claim.session)
    stream = lease.stream
    if session is None or stream is None:
        return False
    if any(other.epoch > stream.epoch and lease.handle in other.asked.held for other in session.streams):
        return True
    first = bisect_left(session.sent, lease.arrived)
    return any(
        session.sent[place] <= end and session.confirmed[place] >= lease.sequence
        for place in range(first, len(session.sent))
    )


def _failed(book: Book, job: Job, outcome: Outcome, report: Report) -> None:
    if outcome.loss_count >= POISON_LOSSES and not outcome.token:
        return
    last = next((lease for lease in reversed(job.leases) if lease.attempt == outcome.attempt), None)
    said = {statement.what for statement in last.statements if statement.what in FAILS} if last is not None else set()
    if outcome.token:
        if "permanent" in said:
            return
        cause = bool(said)
    else:
        cause = last is not None and limit_may_have_passed(book, last, outcome.finished)
    if not cause:
        report.retries_wrong += 1
        _add(job, outcome, "failed without a last failure", report)
    elif outcome.retry_count != outcome.retry_limit:
        report.retries_wrong += 1
        _add(job, outcome, f"failed after {outcome.retry_count} of {outcome.retry_limit} retries", report)


def _add(job: Job, outcome: Outcome, message: str, report: Report) -> None:
    report.add("wrongly counted", message, job=job.id, t=outcome.finished)
