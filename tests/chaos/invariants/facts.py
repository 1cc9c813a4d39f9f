"""What a history is about: jobs, their leases, what was said of them, sessions and their streams.

A lease stands for what a claim gave for one job, whether or not anybody received it. Whatever a call carried counts as
said from the moment at which it was sent, answered or not.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos import history

SKEW = 0.05
"""Seconds by which the database's times and those of the processes may differ on their common axis."""

SETTLED = frozenset({"APPLIED", "ALREADY_APPLIED"})
REFUSED = frozenset({"LEASE_LOST", "NOT_FOUND"})
FAILS = frozenset({"fail", "permanent"})


@dataclass(slots=True)
class Said:
    """One item of an Ack: sent, and how it was answered, if it was."""

    t: float
    what: str
    who: str
    status: str | None = None
    answered: float = 0.0

    @property
    def settles(self) -> bool:
        return self.what != "extend"


@dataclass(slots=True)
class Stream:
    """One Subscribe call."""

    who: str
    asked: history.Subscribe
    session: str = ""
    epoch: int = 0
    opened: float = 0.0
    ended: float | None = None
    drained: bool = False


@dataclass(slots=True)
class Session:
    """A session as its client saw it. Times of Acks are those at which they were sent."""

    id: str
    streams: list[Stream] = field(default_factory=list)
    sent: array[float] = field(default_factory=lambda: array("d"))
    """Each Ack that named the session, with the last event that it confirmed."""
    confirmed: array[int] = field(default_factory=lambda: array("q"))
    alive: array[float] = field(default_factory=lambda: array("d"))
    """Each Ack whose answer said that the session lives."""
    closed: float | None = None
    quiet: float | None = None
    """When it first asked for no more jobs."""

    @property
    def who(self) -> str:
        return self.streams[0].who

    def last_sign(self, before: float) -> float:
        """When an Ack that the server answered was last sent, or the session was opened."""
        place = bisect_left(self.alive, before) - 1
        return max(self.alive[place] if place >= 0 else self.streams[0].opened, self.streams[0].opened)


@dataclass(slots=True)
class Job:
    """A job: who asked for it and what became of it."""

    queue: str
    id: str
    published: float | None = None
    answered: float | None = None
    """When a Publish call that carried it was first answered."""
    leases: list[Lease] = field(default_factory=list)
    outcome: history.Outcome | None = None
    more: int = 0
    """Outcomes beyond the first."""
    live: str = ""
    """Its state in the end, if it is not finished."""
    cancels: list[tuple[float, float, str]] | None = None
    """Operators' orders: sent, answered, with which status."""
    asked: tuple[tuple[str, int], int] | None = None
    """The Publish call that first carried it, and its place there."""
    key: str = ""
    group: str = ""
    tier: str = ""

    def after(self, lease: Lease) -> Lease | None:
        """The next lease, once `Book` has put them in order."""
        place = self.leases.index(lease) + 1
        return self.leases[place] if place < len(self.leases) else None


@dataclass(slots=True, eq=False)
class Lease:
    """What a claim gave for one job."""

    job: Job
    claim: history.Claim
    place: int
    attempt: int
    handle: str = ""
    stream: Stream | None = None
    """Where it arrived, if it did; then `arrived`, `sequence` and `retry_count` tell the rest."""
    arrived: float = 0.0
    sequence: int = 0
    retry_count: int = 0
    said: list[Said] | None = None
    listed_lost: float | None = None
    told: list[tuple[float, str]] | None = None
    """Orders to stop, with their reasons."""

    @property
    def statements(self) -> Sequence[Said]:
        return self.said or ()

    @property
    def won(self) -> bool:
        """Whether it brought the job's outcome."""
        outcome = self.job.outcome
        return outcome is not None and outcome.token == self.claim.token


@dataclass(slots=True)
class Order:
    """An operator's call to pause a queue, or to resume it. `answered` is None if nobody knows whether it was done."""

    sent: float
    paused: bool
    answered: float | None = None


@dataclass(slots=True)
class Arrival:
    """A delivery as it arrived, kept where something is odd with it."""

    t: float
    stream: Stream | None
    handle: str
    queue: str
    job: str
    attempt: int
