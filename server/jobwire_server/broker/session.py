"""A session in its owner's memory.

Credits, what is in flight, heartbeats. The row in the database says whether it is valid; this says how it goes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import Delivery, StopReason
from jobwire_server.domain.limits import MISSED_HEARTBEATS, STREAM_MESSAGE_BYTES
from jobwire_server.domain.shares import EVERY_RANK, Ranks

from .messages import Cancellation, Deliveries, Heartbeat, Quiet, Subscription
from .stream import Stream

_DELIVERY_OVERHEAD = 600
"""More bytes than a delivery takes in a message besides payload and headers."""
_ORIGIN_BYTES = 10_000
"""More than a dead letter tells of the job it comes from: its last error for the most part."""


@dataclass(slots=True)
class InFlight:
    """A delivery that the client has not settled.

    The event that carried it (0: receipt is proven), since when, and what it was told.
    """

    sequence: int
    since: float
    told: StopReason | None = None


class Lane(Protocol):
    """What a session knows of each lane that claims for it."""

    queue: str
    hopeful: bool
    """There may be jobs."""
    suspects: bool
    """There may be suspects."""
    claiming: bool
    well: bool
    """Its last claim did not fail."""
    changed: asyncio.Event


class Session:
    """One session that this replica owns."""

    def __init__(self, session_id: UUID, epoch: int, subscription: Subscription) -> None:
        self.id = session_id
        self.epoch = epoch
        self.queues = subscription.queues
        self.lanes: Sequence[Lane] = ()
        self.worker = subscription.worker
        self.max_in_flight = subscription.max_in_flight
        self.heartbeat_ms = subscription.heartbeat_ms
        self.resume_grace_ms = subscription.resume_grace_ms
        self.stream: Stream | None = None
        self._numbering: Stream | None = None
        self.in_flight: dict[Handle, InFlight] = {}
        self._suspects: set[Handle] = set()
        self._unsettled: Counter[bytes] = Counter()
        self.reserved = 0
        self.saved_for_suspect = False
        self.alone = False
        """A suspect is being claimed for it."""
        self.resuming = False
        self.quiet = False
        """Its client was asked to leave: it has no credits any more, whatever it says."""
        self.detached_at: float | None = None
        """Since when it has had no stream; None while it has one."""
        self.closing = False
        """Its client leaves. What claims for it meanwhile would hold up its end, one after the other."""
        self.timer: asyncio.TimerHandle | None = None
        """The next heartbeat while attached, the end of the grace while detached."""
        self._received = 0
        self._answered = True
        self._missed = 0
        self._written_before = 0

    def ranks(self, queue: str) -> Ranks:  # noqa: ARG002  (all queues are one to it)
        """Which jobs of `queue` it takes."""
        return EVERY_RANK

    def credits_for(self, queue: str) -> int:  # noqa: ARG002
        """How many more jobs of `queue` may be claimed for it now."""
        if self.stream is None or self.stream.behind:
            return 0
        if self.resuming or self.closing or self.saved_for_suspect or self.alone or self.isolated:
            return 0
        return max(0, self.max_in_flight - len(self.in_flight) - self.reserved)

    def wants(self, queue: str) -> bool:
        """Whether to look for jobs of `queue` that nothing told of."""
        return self.credits_for(queue) > 0

    def reserve(self, queue: str, count: int) -> None:  # noqa: ARG002
        """Takes credits for a claim in `queue`."""
        self.reserved += count

    def refund(self, queue: str, count: int) -> None:  # noqa: ARG002
        """Gives them back when the claim is over."""
        self.reserved -= count

    @property
    def isolated(self) -> bool:
        """Whether it runs a suspect, and so gets nothing new."""
        return bool(self._suspects)

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight or reserved, so that a suspect may run alone."""
        return (
            self.stream is not None
            and not self.resuming
            and not self.in_flight
            and not self.reserved
            and self.max_in_flight > 0
        )

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Puts claimed jobs in line for the client, in messages of bounded size."""
        assert self.stream is not None
        group: list[Delivery] = []
        size = 0
        for delivery in deliveries:
            cost = _DELIVERY_OVERHEAD + _length(delivery.data) + _length(delivery.headers or "")
            if delivery.checkpoint:
                cost += _length(delivery.checkpoint)
            if delivery.origin is not None:
                cost += _ORIGIN_BYTES
            if group and size + cost > STREAM_MESSAGE_BYTES:
                self._push(group, size)
                group, size = [], 0
            group.append(delivery)
            size += cost
        if group:
            self._push(group, size)

    def _push(self, group: Sequence[Delivery], size: int) -> None:
        assert self.stream is not None
        sequence, now = self.stream.next_sequence, time.monotonic()
        for delivery in group:
            self.in_flight[delivery.handle] = InFlight(sequence, now)
            if delivery.suspect:
                self._suspects.add(delivery.handle)
        self._unsettled.update(delivery.handle.token_bytes for delivery in group)
        self.stream.push(Deliveries(group, size))

    def hold(self, handles: dict[Handle, bool]) -> None:
        """After a resume: these deliveries go on, and nothing else is in flight."""
        now = time.monotonic()
        self.in_flight = {handle: InFlight(0, now) for handle in handles}
        self._suspects = {handle for handle, suspect in handles.items() if suspect}
        self._unsettled = Counter(handle.token_bytes for handle in handles)
        self.reserved = 0
        self.saved_for_suspect = False
        self._received = 0

    def settle(self, handles: Iterable[Handle]) -> list[Handle]:
        """The client has settled these deliveries, whatever the answer was.

        Their credits return. Returns a handle of each claim that has none left.
        """
        last = []
        for handle in handles:
            if self.in_flight.pop(handle, None) is None:
                continue
            self._suspects.discard(handle)
            token = handle.token_bytes
            left = self._unsettled[token] - 1
            if left:
                self._unsettled[token] = left
            else:
                del self._unsettled[token]
                last.append(handle)
        return last

    def set_credits(self, max_in_flight: int) -> None:
        """The client asks for other credits."""
        if not self.quiet:
            self.max_in_flight = max_in_flight

    def go_quiet(self) -> None:
        """Asks the client to leave, once on each stream."""
        if not self.quiet:
            self.quiet, self.max_in_flight = True, 0
            if self.stream is not None:
                self.stream.push(Quiet())

    def stop(self, handle: Handle, reason: StopReason, grace_ms: int) -> None:
        """Tells the client to stop a delivery, once for each reason."""
        mark = self.in_flight.get(handle)
        if mark is None or mark.told == reason or self.stream is None:
            return
        mark.told = reason
        self.stream.push(Cancellation(handle, reason, grace_ms))

    def alive(self, last_sequence: int) -> None:
        """An Ack named the session."""
        self._answered = True
        if self._numbering is not None and last_sequence < self._numbering.next_sequence:
            # A higher number is an earlier stream's: it proves nothing here.
            self._received = max(self._received, last_sequence)

    def received(self) -> frozenset[Handle]:
        """The deliveries in flight whose receipt is proven."""
        return frozenset(handle for handle, mark in self.in_flight.items() if mark.sequence <= self._received)

    def beat(self) -> bool:
        """Sends a heartbeat; False if the last three were not answered, which loses the session.

        Counted in beats, not in time: after a pause of this process one beat is due, not all that were left out. While
        a heartbeat waits behind payloads, each message of them that the connection has taken begins the count anew.
        """
        written = self.stream.last_written if self.stream is not None else 0
        slow = self.stream is not None and self.stream.heartbeat_waits and written > self._written_before
        self._written_before = written
        self._missed = 0 if self._answered or slow else self._missed + 1
        self._answered = False
        if self._missed >= MISSED_HEARTBEATS:
            return False
        if self.stream is not None:
            self.stream.push(Heartbeat())
        return True

    def attach(self, stream: Stream) -> None:
        """Goes on with a new stream."""
        self.stream = self._numbering = stream
        self.detached_at = None
        self._answered, self._missed, self._written_before = True, 0, 0

    def detach(self) -> None:
        """Its stream is over."""
        self.stream = None
        self.detached_at = time.monotonic()
        self.stop_timer()

    def stop_timer(self) -> None:
        """Cancels what is due next."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
