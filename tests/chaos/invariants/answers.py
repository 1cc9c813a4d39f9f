"""What was answered holds, and what is out of date is not accepted."""

from __future__ import annotations

from collections.abc import Sequence

from .book import FAILS, SKEW, Book, Job, Lease, Said
from .report import Report


def check(book: Book, report: Report) -> None:
    """Invariants `undone` and `stale accepted`."""
    for job in book.jobs():
        found = False
        for place, lease in enumerate(job.leases):
            if lease.said:
                _undone(book, lease, report)
                found |= _stale(book, lease, job.leases[place + 1 :], report)
        if len(job.leases) > 1 and not found:
            _completed_twice(book, job, report)
        for asked, answered, status in job.cancels or ():
            if not book.disturbances.undone(answered):
                _cancel_undone(job, asked, answered, status, report)


def _undone(book: Book, lease: Lease, report: Report) -> None:
    said = [statement for statement in lease.statements if statement.settles]
    words = {statement.what for statement in said}
    for statement in said:
        # What a repetition was answered is about the first one, and of two different ones not known which that was.
        sure = statement.status == "APPLIED" or (statement.status == "ALREADY_APPLIED" and len(words) == 1)
        if not sure or book.disturbances.undone(statement.answered):
            continue
        wrong = _taken_back(lease, statement)
        if wrong:
            report.add(
                "undone",
                f"`{statement.what}` was answered {statement.status}, and {wrong}",
                job=lease.job.id,
                handle=lease.handle,
                session=lease.claim.session,
                t=statement.answered,
            )
            return


def _taken_back(lease: Lease, statement: Said) -> str:
    outcome = lease.job.outcome
    if outcome is None:
        # Lost or live, as `lost` says; but a completed job that lives was taken back.
        return f"the job is {lease.job.live}" if statement.what == "complete" and lease.job.live else ""
    if statement.what == "complete":
        if outcome.state == "completed" and lease.won:
            return ""
        by = "" if not outcome.token else " by the same delivery" if lease.won else " by another delivery"
        return f"the job is {outcome.state}{by}"
    winner = next((other for other in lease.job.leases if other.won), None)
    if winner is lease and (statement.what not in FAILS or outcome.state != "failed"):
        return f"the job is {outcome.state} by the same delivery"
    if winner is not None and winner.attempt < lease.attempt:
        return f"the job is {outcome.state} by the delivery of attempt {winner.attempt}"
    for other in lease.job.leases:
        if other.attempt <= lease.attempt and other.claim.t > statement.answered + SKEW:
            return f"attempt {other.attempt} was claimed later"
    return ""


def _cancel_undone(job: Job, asked: float, answered: float, status: str, report: Report) -> None:
    outcome = job.outcome
    if status not in ("CANCELLED", "REQUESTED") or outcome is None:
        return
    allowed = ("cancelled",) if status == "CANCELLED" else ("cancelled", "completed")
    wrong = f"the job is {outcome.state}" if outcome.state not in allowed else ""
    if job.leases and job.leases[-1].claim.t > answered + SKEW:
        wrong = "the job was delivered later"
    if wrong:
        report.add("undone", f"a cancel was answered {status}, and {wrong}", job=job.id, t=asked)


def _stale(book: Book, lease: Lease, later: Sequence[Lease], report: Report) -> bool:
    applied = [statement for statement in lease.statements if statement.status == "APPLIED"]
    settled = [statement for statement in applied if statement.settles]
    if len(settled) > 1:
        _accept(lease, settled[1], "the delivery was settled before", report)
        return True
    ended = _ended_at_latest(lease, later)
    for statement in applied:
        if statement.t > ended and not book.disturbances.undone(statement.answered):
            _accept(lease, statement, "the lease was over when it was sent", report)
            return True
    return False


def _ended_at_latest(lease: Lease, later: Sequence[Lease]) -> float:
    """By when the lease was certainly over, as its rivals show."""
    outcome = lease.job.outcome
    ended = outcome.finished + SKEW if outcome is not None else float("inf")
    for other in later:
        if other.attempt > lease.attempt:
            ended = min(ended, other.claim.t + SKEW)
            if other.stream is not None:
                ended = min(ended, other.arrived)
    return ended


def _completed_twice(book: Book, job: Job, report: Report) -> None:
    completed = [
        (lease, statement)
        for lease in job.leases
        for statement in lease.statements
        if statement.what == "complete" and statement.status == "APPLIED"
    ]
    if len({id(lease) for lease, _ in completed}) > 1:
        lease, statement = max(completed, key=lambda pair: pair[1].answered)
        if not any(book.disturbances.undone(other.answered) for _, other in completed):
            _accept(lease, statement, "another delivery had completed the job", report)


def _accept(lease: Lease, statement: Said, why: str, report: Report) -> None:
    report.stale_accepted += 1
    report.add(
        "stale accepted",
        f"`{statement.what}` was answered {statement.status}, though {why}",
        job=lease.job.id,
        handle=lease.handle,
        session=lease.claim.session,
        t=statement.t,
    )
