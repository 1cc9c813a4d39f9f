"""A session never has more deliveries in flight than it asked for.

Counted from the client's side, which sees fewer than the server: a delivery counts from its arrival, and no longer once
a settling Ack has been sent. So a count above the credits is the server's doing.

While an Ack that names other credits is on its way, both values may hold. A lowered one travels on as a signal if
another replica took the Ack: it counts for what is claimed some time after the answer, and not if the service was
disturbed meanwhile, since a lost signal is not repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from tests.chaos import history

from .book import Book
from .report import Report

SETTLE_IN = 2.0
"""Seconds after its answer at which a change of credits holds everywhere."""


@dataclass(slots=True)
class _Limit:
    value: int
    sent: float
    answered: float = inf


@dataclass(slots=True)
class _Count:
    stream: tuple[str, int]
    epoch: int
    in_flight: set[str]
    limits: list[_Limit] = field(default_factory=list)


class _Counter:
    def __init__(self, book: Book, report: Report) -> None:
        self.book = book
        self.report = report
        self.counts: dict[str, _Count] = {}
        self.changes: dict[tuple[str, int], _Limit] = {}

    def opened(self, event: history.Opened) -> None:
        key = (event.who, event.call)
        known = self.counts.get(event.session)
        if known is not None and known.epoch >= event.epoch:
            return
        asked = self.book.streams[key].asked
        held = set(asked.held).difference(event.lost)
        in_flight = {handle for handle in held if not self._settled(handle, event.t)}
        self.counts[event.session] = _Count(
            key, event.epoch, in_flight, [_Limit(asked.credits, asked.t, event.t - SETTLE_IN)]
        )

    def _settled(self, handle: str, before: float) -> bool:
        lease = self.book.lease_of(handle)
        return lease is None or any(said.settles and said.t <= before for said in lease.statements)

    def delivered(self, event: history.Delivered) -> None:
        key = (event.who, event.call)
        stream = self.book.streams.get(key)
        count = self.counts.get(stream.session) if stream is not None else None
        if count is None or count.stream != key:
            return
        count.in_flight.update(job[0] for job in event.jobs)
        here = len(count.in_flight)
        if len(count.limits) == 1 and here <= count.limits[0].value:
            return
        leases = [lease for job in event.jobs if (lease := self.book.lease_of(job[0])) is not None]
        claimed = min((lease.claim.t for lease in leases), default=event.t)
        allowed = self._allowed(count, claimed, event.who)
        if here > allowed:
            self.report.add(
                "credits",
                f"{here} deliveries in flight, {allowed} credits",
                handle=event.jobs[-1][0],
                session=stream.session if stream is not None else "",
                t=event.t,
            )

    def _allowed(self, count: _Count, claimed: float, who: str) -> int:
        limits, disturbances = count.limits, self.book.disturbances
        base = 0
        for place, limit in enumerate(limits):
            if limit.answered + SETTLE_IN <= claimed and (
                not place
                or not (
                    disturbances.service.within(limit.sent, claimed)
                    or disturbances.restarts.within(limit.sent, claimed)
                    or disturbances.of_client(who).within(limit.sent, claimed)
                )
            ):
                base = place
        return max(
            limit.value
            for place, limit in enumerate(limits)
            if place >= base or (limit.answered > limits[base].sent and place)
        )

    def ack(self, event: history.Ack) -> None:
        for handle, what in event.items:
            if what == "extend":
                continue
            lease = self.book.lease_of(handle)
            session = lease.claim.session if lease is not None else event.session
            if (count := self.counts.get(session)) is not None:
                count.in_flight.discard(handle)
        if event.credits is not None and (count := self.counts.get(event.session)) is not None:
            limit = self.changes[event.who, event.call] = _Limit(event.credits, event.t)
            count.limits.append(limit)

    def acked(self, event: history.Acked) -> None:
        limit = self.changes.pop((event.who, event.call), None)
        if limit is not None:
            limit.answered = event.t


def check(book: Book, report: Report) -> None:
    """Invariant `credits`."""
    counter = _Counter(book, report)
    for event in book.events:
        match event:
            case history.Ack():
                counter.ack(event)
            case history.Delivered():
                counter.delivered(event)
            case history.Acked():
                counter.acked(event)
            case history.Opened():
                counter.opened(event)
            case _:
                pass
