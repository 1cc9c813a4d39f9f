"""The history, put in order by what it is about: jobs, their leases, what was said of them, and sessions.

Made in one pass. A lease stands here if the database recorded its claim, whether or not anybody received it; what was
received or named without such a record is kept apart, for the checks to complain about. Nothing is judged here, but for
one thing: whatever a call carried counts as said from the moment at which it was sent, answered or not.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobwire_server.domain.handles import Handle
from tests.chaos import history
from tests.chaos.history import Event, Fault, Terms

from .disturbances import Disturbances

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
class Arrival:
    """A delivery as it arrived, kept where something is odd with it."""

    t: float
    stream: Stream | None
    handle: str
    queue: str
    job: str
    attempt: int


class Book:
    """All of a run, by what it is about."""

    def __init__(self, events: Sequence[Event], end: history.EndState, terms: Terms) -> None:
        self.terms = terms
        self.events = events
        self.end = end
        self.queues: dict[str, dict[str, Job]] = {}
        self.sessions: dict[str, Session] = {}
        self.streams: dict[tuple[str, int], Stream] = {}
        self.double_claims: list[Lease] = []
        self.twice: list[Arrival] = []
        self.unclaimed: list[Arrival] = []
        self.mismatched: list[tuple[Arrival, Lease]] = []
        self.starts: dict[tuple[str, int], int] = {}
        self.stopped: set[tuple[str, int]] = set()
        self.leases = 0
        self.deliveries = 0
        self._claims: dict[tuple[str, str], list[Lease]] = {}
        self._handles: dict[str, Lease] = {}
        self._asked: dict[tuple[str, int], Any] = {}
        faults: list[Fault] = []
        clients: set[str] = set()
        self._note_end(end)
        take: dict[str, Callable[[Any], None]] = {
            "publish": self._publish,
            "published": self._published,
            "subscribe": self._subscribe,
            "opened": self._opened,
            "delivered": self._delivered,
            "cancelled": self._cancelled,
            "draining": self._draining,
            "ended": self._ended,
            "ack": self._ack,
            "acked": self._acked,
            "cancel": self._keep,
            "cancel_answered": self._cancel_answered,
            "failed": self._failed,
            "started": self._started,
            "finished": self._finished,
            "fault": faults.append,
            "heartbeat": lambda _: None,
        }
        for event in events:
            take[event.kind](event)
            if event.kind != "fault":
                clients.add(event.who)
        for session in self.sessions.values():
            session.alive = array("d", sorted(session.alive))
        self.faults = faults
        self.disturbances = Disturbances(faults, clients)

    def jobs(self) -> Iterator[Job]:
        """All jobs that are named anywhere."""
        for jobs in self.queues.values():
            yield from jobs.values()

    def job(self, queue: str, job_id: str) -> Job:
        """A job, known or new."""
        jobs = self.queues.setdefault(queue, {})
        job = jobs.get(job_id)
        if job is None:
            job = jobs[job_id] = Job(queue, job_id)
        return job

    def lease_of(self, handle: str) -> Lease | None:
        """The lease that a handle names, if the database recorded its claim."""
        lease = self._handles.get(handle)
        if lease is None and (parsed := Handle.parse(handle)) is not None:
            leases = self._claims.get((parsed.queue, str(parsed.token)), ())
            if parsed.place <= len(leases) and leases[parsed.place - 1].job.id == str(parsed.job_id):
                lease = self._handles[handle] = leases[parsed.place - 1]
                lease.handle = handle
        return lease

    # The database's last word.

    def _note_end(self, end: history.EndState) -> None:
        for outcome in end.outcomes:
            job = self.job(outcome.queue, outcome.id)
            if job.outcome is None:
                job.outcome = outcome
            else:
                job.more += 1
        for queue, job_id, state in end.live:
            self.job(queue, job_id).live = state
        for claim in end.claims:
            leases = []
            for place, (job_id, attempt) in enumerate(zip(claim.ids, claim.attempts, strict=True), 1):
                job = self.job(claim.queue, job_id)
                lease = Lease(job, claim, place, attempt)
                job.leases.append(lease)
                leases.append(lease)
            self.leases += len(leases)
            # An empty one only keeps the place of a claim whose result was lost.
            if leases and self._claims.setdefault((claim.queue, claim.token), leases) is not leases:
                self.double_claims += leases[:1]
        for job in self.jobs():
            if len(job.leases) > 1:
                job.leases.sort(key=lambda lease: (lease.attempt, lease.claim.t))

    # What the processes saw.

    def _keep(self, event: Event) -> None:
        self._asked[event.who, event.call] = event

    def _publish(self, event: history.Publish) -> None:
        self._keep(event)
        for job_id, _ in event.jobs:
            if job_id:
                job = self.job(event.queue, job_id)
                if job.published is None:
                    job.published = event.t

    def _published(self, event: history.Published) -> None:
        asked = self._asked.pop((event.who, event.call))
        for job_id, _ in event.results:
            job = self.job(asked.queue, job_id)
            if job.published is None:
                job.published = asked.t
            if job.answered is None:
                job.answered = event.t

    def _subscribe(self, event: history.Subscribe) -> None:
        self.streams[event.who, event.call] = Stream(event.who, event)

    def _opened(self, event: history.Opened) -> None:
        stream = self.streams[event.who, event.call]
        stream.session, stream.epoch, stream.opened = event.session, event.epoch, event.t
        session = self.sessions.get(event.session)
        if session is None:
            session = self.sessions[event.session] = Session(event.session)
        session.streams.append(stream)
        for handle in event.lost:
            lease = self.lease_of(handle)
            if lease is not None and lease.listed_lost is None:
                lease.listed_lost = event.t

    def _delivered(self, event: history.Delivered) -> None:
        stream = self.streams.get((event.who, event.call))
        for handle, queue, job_id, attempt, retry_count, _ in event.jobs:
            self.deliveries += 1
            lease = self.lease_of(handle)
            if lease is None:
                self.job(queue, job_id)
                self.unclaimed.append(Arrival(event.t, stream, handle, queue, job_id, attempt))
                continue
            if lease.stream is not None:
                self.twice.append(Arrival(event.t, stream, handle, queue, job_id, attempt))
                continue
            lease.stream, lease.arrived, lease.sequence = stream, event.t, event.sequence
            lease.retry_count = retry_count
            told = (queue, job_id, attempt, stream.session if stream else "", stream.epoch if stream else 0)
            claim = lease.claim
            if told != (lease.job.queue, lease.job.id, lease.attempt, claim.session, claim.epoch):
                self.mismatched.append((Arrival(event.t, stream, handle, queue, job_id, attempt), lease))

    def _cancelled(self, event: history.Cancelled) -> None:
        lease = self.lease_of(event.handle)
        if lease is not None:
            lease.told = [*(lease.told or ()), (event.t, event.reason)]

    def _draining(self, event: history.Draining) -> None:
        self.streams[event.who, event.call].drained = True

    def _ended(self, event: history.Ended) -> None:
        stream = self.streams.get((event.who, event.call))
        if stream is not None:
            stream.ended = event.t

    def _ack(self, event: history.Ack) -> None:
        said = []
        for handle, what in event.items:
            statement = Said(event.t, what, event.who)
            said.append(statement)
            lease = self.lease_of(handle)
            if lease is not None:
                if lease.said is None:
                    lease.said = []
                lease.said.append(statement)
        self._asked[event.who, event.call] = (event, said)
        session = self.sessions.get(event.session)
        if session is not None:
            session.sent.append(event.t)
            session.confirmed.append(event.last_sequence)
            if event.close and session.closed is None:
                session.closed = event.t
            if event.credits == 0 and session.quiet is None:
                session.quiet = event.t

    def _acked(self, event: history.Acked) -> None:
        asked, said = self._asked.pop((event.who, event.call))
        for statement, status in zip(said, event.results, strict=True):
            statement.status, statement.answered = status, event.t
        session = self.sessions.get(asked.session)
        if session is not None and event.alive:
            session.alive.append(asked.t)

    def _cancel_answered(self, event: history.CancelAnswered) -> None:
        asked = self._asked.pop((event.who, event.call))
        for job_id, status in zip(asked.jobs, event.statuses, strict=True):
            job = self.job(asked.queue, job_id)
            job.cancels = [*(job.cancels or ()), (asked.t, event.t, status)]

    def _failed(self, event: history.Failed) -> None:
        self._asked.pop((event.who, event.call), None)

    def _started(self, event: history.Started) -> None:
        key = (event.job, event.attempt)
        self.starts[key] = self.starts.get(key, 0) + 1

    def _finished(self, event: history.Finished) -> None:
        if event.how == "stopped":
            self.stopped.add((event.job, event.attempt))
