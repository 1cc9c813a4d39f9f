"""Jobs are stored, with or without sessions that wait for them, or by the SQL function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from jobwire_server.domain.jobs import NewJob
from jobwire_server.domain.queues import Queue
from jobwire_server.store import publishing
from jobwire_server.store.claiming import EVERYTHING, Want
from tests.model.model import Model
from tests.model.names import handle_name, name, names
from tests.model.stage import Stage

from .claiming import Dealt, deal

Stored = list[tuple[str, bool, bool]]
"""For each job its id, whether it was stored, and whether what was known already has another payload."""


def store(model: Model, queue: Queue, jobs: Sequence[NewJob]) -> Stored:
    """Those jobs are stored whose ids are not known; of two of one id the first."""
    stored: set[UUID] = set()
    first = {job.id: job for job in reversed(jobs)}
    known: dict[UUID, str] = {}
    for job_id in dict.fromkeys(job.id for job in jobs):
        job = first[job_id]
        live, over = model.jobs.get((queue.name, job_id)), model.newest_outcome(queue.name, job_id)
        if live is not None or (over is not None and over.recent):
            known[job_id] = live.data if live is not None else over.data if over is not None else ""
        else:
            model.add(queue, job)
            stored.add(job_id)
    results: Stored = []
    for job in jobs:
        fresh = job.id in stored
        stored.discard(job.id)
        differs = not fresh and known.get(job.id, first[job.id].data) != job.data
        results.append((name(job.id), fresh, differs))
    return results


@dataclass(frozen=True)
class Publish:
    """A Publish call."""

    replica: int
    queue: Queue
    jobs: tuple[NewJob, ...]

    async def do(self, stage: Stage) -> Stored:
        done = await publishing.publish(stage.databases[self.replica], self.queue, self.jobs)
        return [(name(result.id), result.created, result.data_differs) for result in done.results]

    def expect(self, model: Model) -> Stored:
        return store(model, self.queue, self.jobs)

    def __str__(self) -> str:
        return f"publish to {self.queue.name}: {', '.join(map(job_text, self.jobs))}"


def job_text(job: NewJob) -> str:
    """A new job in a few words."""
    said = [name(job.id)]
    if job.priority:
        said.append(f"priority {job.priority}")
    if job.labels.key or job.labels.group:
        said.append(f"of {job.labels.key or job.labels.group}")
    if job.start_in_ms is not None:
        said.append(f"in {job.start_in_ms} ms")
    if job.options.retry_limit is not None:
        said.append(f"{job.options.retry_limit} retries")
    return " ".join(said)


@dataclass(frozen=True)
class PublishInSql:
    """The function publish(), in a transaction of the caller's."""

    queue: Queue
    job: NewJob

    async def do(self, stage: Stage) -> str:
        [(job_id,)] = await stage.execute(
            "SELECT {s}.publish(%(queue)s, %(data)s::jsonb, jsonb_strip_nulls(jsonb_build_object('id', %(id)s::text,"
            " 'priority', %(priority)s::int, 'start_in', %(start_in)s::float8 / 1000)))",
            {
                "queue": self.queue.name,
                "data": self.job.data,
                "id": str(self.job.id),
                "priority": self.job.priority,
                "start_in": self.job.start_in_ms,
            },
        )
        return name(job_id)

    def expect(self, model: Model) -> str:
        store(model, self.queue, [self.job])
        return name(self.job.id)

    def __str__(self) -> str:
        return f"publish in SQL to {self.queue.name}: {job_text(self.job)}"


@dataclass(frozen=True)
class HandOver:
    """A Publish call that meets sessions that wait: the first jobs are theirs at once, unless others wait before."""

    replica: int
    owner: UUID
    queue: Queue
    jobs: tuple[NewJob, ...]
    wants: tuple[Want, ...]

    async def do(self, stage: Stage) -> tuple[Stored, Dealt]:
        database = stage.databases[self.replica]
        done = await publishing.hand_over(database, self.owner, self.queue, self.jobs, self.wants, EVERYTHING)
        stored = [(name(result.id), result.created, result.data_differs) for result in done.results]
        return stored, [(handle_name(d.handle), d.attempt, d.retry_count) for d in done.claimed]

    def expect(self, model: Model) -> tuple[Stored, Dealt]:
        waits = bool(model.ready(self.queue.name, suspect=False))
        unknown = {job.id: job for job in reversed(self.jobs) if (self.queue.name, job.id) not in model.jobs}
        stored = store(model, self.queue, self.jobs)
        # An id that turns out to be a finished job's has its place in the claim, which stays empty.
        order = sorted(
            dict.fromkeys(job.id for job in self.jobs if job.id in unknown), key=lambda i: -unknown[i].priority
        )
        offered = [model.jobs.get((self.queue.name, job_id)) for job_id in order]
        return stored, [] if waits or self.queue.name in model.paused else deal(model, self.owner, self.wants, offered)

    def __str__(self) -> str:
        sessions = names(want.session_id for want in self.wants)
        return f"publish to {self.queue.name} and hand over to {sessions}: {', '.join(map(job_text, self.jobs))}"
