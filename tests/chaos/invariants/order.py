"""Jobs of a queue are claimed by priority, then in the order in which they were stored.

Not where jobs wait for others of their key or group. Judged by first claims only, since a job that comes back is at its
place before others that went meanwhile; and only for jobs that were never scheduled. A first claim whose result was
lost is a claim like any other: the job was taken in turn.

What may be overtaken: a job that has just been stored (its signal, and the floor under which a lane does not look, are
behind by a poll at most), and a job that a claim beside it has locked (they are not waited for). If that claim was
rolled back, by a fault of the service, the job is found again at the next poll: then only being overtaken a second
time, after that, is wrong.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import inf

from .book import Book
from .facts import Job
from .report import Report

SIDE_BY_SIDE = 1.0
"""Seconds that claims which run at the same time may take."""


@dataclass(slots=True)
class _Turn:
    job: Job
    order: tuple[int, int]
    waiting: float
    """Since when it was certainly there for everybody to see."""
    left: float
    claimed: float | None


class _Standing:
    """Which times of a sorted list still stand, and the next one from any place on, in nearly constant time."""

    def __init__(self, size: int) -> None:
        self._next = list(range(size + 1))

    def remove(self, place: int) -> None:
        self._next[place] = place + 1

    def first(self, place: int) -> int:
        following = self._next
        found = place
        while following[found] != found:
            found = following[found]
        while following[place] != found:
            following[place], place = found, following[place]
        return found


def check(book: Book, report: Report) -> None:
    """Invariant `order`."""
    slack = 2 * book.terms.poll_interval + 1.0
    for queue, jobs in book.queues.items():
        if book.rules(queue).gated:
            continue
        turns = [turn for job in jobs.values() if (turn := _turn(book, job)) is not None]
        _check_queue(book, sorted(turns, key=lambda turn: turn.order), slack, report)


def _turn(book: Book, job: Job) -> _Turn | None:
    outcome = job.outcome
    if outcome is None or outcome.scheduled or book.disturbances.undone(outcome.created):
        return None
    first = next((lease for lease in job.leases if lease.attempt == 1), None)
    claimed = first.claim.t if first is not None else None
    return _Turn(
        job,
        (-outcome.priority, outcome.seq),
        # When it was stored is not when it could be seen, which is with the commit: before the answer.
        max(outcome.created, job.answered) if job.answered is not None else inf,
        claimed if claimed is not None else outcome.finished,
        claimed,
    )


def _check_queue(book: Book, turns: list[_Turn], slack: float, report: Report) -> None:
    claimed = sorted((turn.claimed, place) for place, turn in enumerate(turns) if turn.claimed is not None)
    times = [t for t, _ in claimed]
    place_of = {place: n for n, (_, place) in enumerate(claimed)}
    standing = _Standing(len(times))
    for place, turn in enumerate(turns):
        # What stands are the claims of jobs that come after this one.
        if place in place_of:
            standing.remove(place_of[place])
        found = standing.first(bisect_right(times, turn.waiting + slack)) if turn.waiting < inf else len(times)
        if found < len(times) and times[found] < turn.left - SIDE_BY_SIDE:
            t = times[found]
            if book.disturbances.service.within(t - slack, t):
                found = standing.first(bisect_right(times, t + slack))
                if found == len(times) or times[found] >= turn.left - SIDE_BY_SIDE:
                    continue
            other = turns[claimed[found][1]]
            report.add(
                "order",
                f"waiting since {turn.waiting:.3f}, claimed {turn.left:.3f}, overtaken by {other.job.id}"
                f" (priority and number {_named(turn)} against {_named(other)})",
                job=turn.job.id,
                t=times[found],
            )


def _named(turn: _Turn) -> str:
    return f"{-turn.order[0]}, {turn.order[1]}"
