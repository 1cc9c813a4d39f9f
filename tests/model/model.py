"""What the store should hold, in memory: jobs, claims and sessions, changed by the table of transitions alone.

Time stands still here. It passes for one claim at a time, when an operation says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import JobState, NewJob, StopReason
from jobwire_server.domain.limits import ERRORS_KEPT
from jobwire_server.domain.queues import JobOptions, Queue
from jobwire_server.domain.transitions import OVER, RUNNING, WAITING, Event, Facts, Row, Standing, after, row_for

from .names import name

CANCEL_GRACE_MS = 300_000
"""As the other times of this model, so far from sums of the others that the real time a run takes decides nothing."""

_STOP = {Standing.STOPPING: StopReason.REQUESTED, Standing.EXPIRED: StopReason.EXPIRED}


@dataclass
class Job:
    """A live job. `seq` is its place in the order of publication, `limit` and `stop_at` are on its claim's clock."""

    queue: str
    id: UUID
    seq: int
    rank: int
    data: str
    options: JobOptions
    facts: Facts
    gate: str = ""
    """Where it waits for its turn: its key or group."""
    later: bool = False
    """Whether its first time has not come."""
    settled: UUID | None = None
    lease: Handle | None = None
    limit: int = 0
    stop_at: int | None = None

    @property
    def key(self) -> tuple[str, UUID]:
        return self.queue, self.id

    @property
    def state(self) -> JobState:
        """As Acks are told it, who do not look which gate keeps a job."""
        state = replace(self.facts, gated=False, standing=Standing.READY).state if self.waits else self.facts.state
        assert state is not None
        return state

    @property
    def waits(self) -> bool:
        return self.facts.standing in WAITING

    @property
    def stop(self) -> StopReason | None:
        return _STOP.get(self.facts.standing)

    def shown(self) -> list[Any]:
        """As `stage.Stage.look` finds it."""
        counts = self.facts.counts
        return [
            self.queue,
            name(self.id),
            self.rank,
            counts.attempt + self.waits,
            counts.retry_count,
            counts.loss_count,
            counts.release_count,
            min(counts.errors, ERRORS_KEPT),
            self.stop.value if self.stop else None,
            name(self.settled),
            [self.facts.standing.value + (" alone" if self.facts.suspect else "")] if self.waits else [],
            [f"{name(self.lease.token)}.{self.lease.place}"] if self.lease else [],
        ]


@dataclass
class Finished:
    """An outcome. `recent`: its id is still known to Publish."""

    queue: str
    id: UUID
    facts: Facts
    token: UUID | None
    data: str
    job: Job
    recent: bool = True

    def shown(self) -> list[Any]:
        """As `stage.Stage.outcomes` finds it."""
        counts = self.facts.counts
        assert self.facts.state is not None
        return [
            self.queue,
            name(self.id),
            self.facts.state.value,
            counts.attempt,
            counts.retry_count,
            counts.loss_count,
            counts.release_count,
            min(counts.errors, ERRORS_KEPT),
            name(self.token),
        ]


@dataclass
class Claim:
    """A group of deliveries to one session. `age` is how far its clock was moved, `ids` all it ever named."""

    queue: str
    token: UUID
    session: UUID
    age: int = 0
    ids: tuple[UUID, ...] = ()


@dataclass
class Session:
    """A worker's standing."""

    id: UUID
    owner: UUID
    epoch: int = 1
    renewals: int = 0


@dataclass
class Model:
    """All there is."""

    jobs: dict[tuple[str, UUID], Job] = field(default_factory=dict)
    finished: list[Finished] = field(default_factory=list)
    claims: dict[UUID, Claim] = field(default_factory=dict)
    sessions: dict[UUID, Session] = field(default_factory=dict)
    seq: int = 0
    deleted: list[tuple[str, UUID]] = field(default_factory=list)
    """Jobs that nobody knows any more, whose ids may be used again."""
    paused: set[str] = field(default_factory=set)
    walked: Counter[Row] = field(default_factory=Counter)
    """How often each row of the table was taken; of all copies together."""

    def copy(self) -> Model:
        """Another one that can go another way."""
        return Model(
            {key: replace(job) for key, job in self.jobs.items()},
            [replace(each) for each in self.finished],
            {token: replace(claim) for token, claim in self.claims.items()},
            {id_: replace(session) for id_, session in self.sessions.items()},
            self.seq,
            list(self.deleted),
            set(self.paused),
            self.walked,
        )

    def shown(self) -> dict[str, Any]:
        """As `stage.Stage.look` finds it."""
        jobs = [job.shown() for job in sorted(self.jobs.values(), key=lambda job: job.seq)]
        return {
            "jobs": jobs,
            "tickets": sum(len(job[-2]) for job in jobs),
            "claims": sorted([name(claim.token), name(claim.session)] for claim in self.claims.values()),
            "sessions": sorted([name(s.id), name(s.owner), s.epoch, s.renewals] for s in self.sessions.values()),
            "finished": len(self.finished),
        }

    # What is there

    def ready(self, queue: str, *, suspect: bool) -> list[Job]:
        """What may be claimed, in the order of claims."""
        found = [
            job
            for job in self.jobs.values()
            if job.queue == queue and job.facts.standing is Standing.READY and job.facts.suspect is suspect
        ]
        return sorted(found, key=lambda job: (job.rank, job.seq))

    def leases(self, session: UUID | None = None) -> list[Job]:
        """Jobs under a valid lease, of one session or of all."""
        return [
            job
            for job in self.jobs.values()
            if job.lease is not None and (session is None or self.claims[job.lease.token].session == session)
        ]

    def leased(self, handle: Handle) -> Job | None:
        """The job of a delivery whose lease is valid."""
        job = self.jobs.get((handle.queue, handle.job_id))
        return job if job is not None and job.lease == handle else None

    def newest_outcome(self, queue: str, job_id: UUID) -> Finished | None:
        """Of all outcomes of an id the last one."""
        return next((each for each in reversed(self.finished) if (each.queue, each.id) == (queue, job_id)), None)

    # What becomes of it

    def add(self, queue: Queue, job: NewJob) -> None:
        """A job is stored."""
        options, labels = job.options.over(queue.options), job.labels
        facts = Facts(retry_limit=options.retry_limit, gated=queue.gated)
        facts = self._after(facts, Event.PUBLISH, later=bool(job.start_in_ms))
        self.seq += 1
        stored = Job(
            queue.name, job.id, self.seq, -job.priority, job.data, options, facts, labels.key or labels.group or ""
        )
        stored.later = bool(job.start_in_ms)
        self.jobs[stored.key] = stored

    def befall(
        self,
        job: Job,
        event: Event,
        *,
        permanent: bool = False,
        later: bool | None = None,
        by: UUID | None = None,
    ) -> None:
        """An event changes a job. `by` is the token of the Ack that said so; `later` None: as the job's pause says."""
        if later is None:
            later = job.facts.standing is Standing.EXPIRED and job.options.retry_delay_ms > 0
        facts = job.facts = self._after(job.facts, event, permanent=permanent, later=later)
        if event in (Event.DUE, Event.RUN):
            job.later = False
        if facts.standing in RUNNING:
            return
        job.lease, job.stop_at, job.settled = None, None, by or job.settled
        if facts.standing in OVER:
            del self.jobs[job.key]
            self.finished.append(Finished(job.queue, job.id, facts, by, job.data, job))

    def _after(self, facts: Facts, event: Event, *, permanent: bool = False, later: bool) -> Facts:
        row = row_for(facts, event, permanent=permanent)
        assert row is not None, f"{event} befalls a job that is {facts.standing}"
        self.walked[row] += 1
        return after(facts, row, later=later)

    def revive(self, over: Finished, event: Event) -> bool:
        """A finished job waits again, for its time if that has not come; returns whether it may."""
        if row_for(over.facts, event) is None:
            return False
        self.finished.remove(over)
        job = over.job
        later = event is Event.RESUME and job.later
        job.facts, job.settled = self._after(over.facts, event, later=later), over.token
        self.jobs[job.key] = job
        return True

    def delete(self, queue: str, job_id: UUID) -> bool:
        """Whatever is known of a job is forgotten, unless it runs; returns whether there was anything."""
        job = self.jobs.get((queue, job_id))
        over = [each for each in self.finished if (each.queue, each.id) == (queue, job_id)]
        if job is not None:
            if row_for(job.facts, Event.DELETE) is None:
                return False
            self._after(job.facts, Event.DELETE, later=False)
            del self.jobs[job.key]
            self.deleted.append((queue, job_id))
            return True
        for each in over:
            self._after(each.facts, Event.DELETE, later=False)
            self.finished.remove(each)
            self.deleted.append((queue, job_id))
        return bool(over)

    def forget(self, tokens: Iterable[UUID]) -> None:
        """Claims are removed."""
        for token in tokens:
            self.claims.pop(token, None)

    def end_all(self, jobs: Iterable[Job], event: Event, *, later: bool | None = None) -> dict[str, int]:
        """Leases end in the same way; how many by queue."""
        ended: dict[str, int] = {}
        for job in list(jobs):
            self.befall(job, event, later=later)
            ended[job.queue] = ended.get(job.queue, 0) + 1
        return ended

    def overdue(self) -> Iterator[tuple[Job, Event]]:
        """What time brings about now: limits that passed, and graces that are over."""
        for job in self.leases():
            assert job.lease is not None
            age = self.claims[job.lease.token].age
            if job.stop_at is not None:
                if job.stop_at <= age:
                    yield job, Event.GRACE
            elif job.limit <= age:
                yield job, Event.LIMIT
