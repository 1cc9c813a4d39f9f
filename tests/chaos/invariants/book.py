"""The history, put in order by what it is about.

Made in one pass, and nothing is judged here. What was received or named without a claim that the database recorded is
kept apart, for the checks to complain about.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jobwire_server.domain.handles import Handle
from tests.chaos import history
from tests.chaos.history import Event, Fault, Rules, Terms

from .disturbances import Disturbances
from .facts import Arrival, Job, Lease, Order, Said, Session, Stream

PLAIN = Rules()


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
        self.pauses: dict[str, list[Order]] = {}
        self._failed_keys: dict[str, set[str]] = {}
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
            "pause": self._pause,
            "pause_answered": self._pause_answered,
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

    def rules(self, queue: str) -> Rules:
        """What the queue lets run."""
        return self.end.rules.get(queue, PLAIN)

    def failed_keys(self, queue: str) -> set[str]:
        """The keys of which a job failed for good."""
        found = self._failed_keys.get(queue)
        if found is None:
            jobs = self.queues.get(queue, {}).values()
            found = {job.key for job in jobs if job.outcome is not None and job.outcome.state == "failed"}
            self._failed_keys[queue] = found
        return found

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
        for place, (job_id, _) in enumerate(event.jobs):
            if job_id:
                job = self.job(event.queue, job_id)
                if job.published is None:
                    job.published = event.t
                    job.asked = (event.who, event.call), place
                    if event.labels:
                        job.key, job.group, job.tier = event.labels[place]

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

    def _pause(self, event: history.Pause) -> None:
        order = Order(event.t, event.paused)
        self._asked[event.who, event.call] = order
        self.pauses.setdefault(event.queue, []).append(order)

    def _pause_answered(self, event: history.PauseAnswered) -> None:
        self._asked.pop((event.who, event.call)).answered = event.t

    def _failed(self, event: history.Failed) -> None:
        self._asked.pop((event.who, event.call), None)

    def _started(self, event: history.Started) -> None:
        key = (event.job, event.attempt)
        self.starts[key] = self.starts.get(key, 0) + 1

    def _finished(self, event: history.Finished) -> None:
        if event.how == "stopped":
            self.stopped.add((event.job, event.attempt))
