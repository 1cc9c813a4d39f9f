"""Jobs come to gates, and those who keep them let in who is next; queues are paused."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from jobwire_server.domain.jobs import NewJob
from jobwire_server.domain.queues import Queue
from jobwire_server.domain.transitions import RUNNING, Event, Standing
from jobwire_server.store import gates, publishing, queues
from tests.model.model import Job, Model
from tests.model.names import name
from tests.model.stage import GATES, Stage

from .publishing import Stored, job_text, store

_AT_THE_GATE = (Standing.READY, Standing.BLOCKED)


@dataclass(frozen=True)
class PublishKeyed:
    """A Publish call to a queue that minds keys or groups."""

    replica: int
    queue: Queue
    jobs: tuple[NewJob, ...]

    async def do(self, stage: Stage) -> Stored:
        done = await publishing.publish_keyed(stage.databases[self.replica], self.queue, self.jobs)
        return [(name(result.id), result.created, result.data_differs) for result in done.results]

    def expect(self, model: Model) -> Stored:
        return store(model, self.queue, self.jobs)

    def __str__(self) -> str:
        return f"publish to {self.queue.name}: {', '.join(map(job_text, self.jobs))}"


@dataclass(frozen=True)
class Admit:
    """Of each key or group the best go in, as far as its running jobs leave room, and the others wait."""

    replica: int
    queue: str

    async def do(self, stage: Stage) -> None:
        while (await gates.admit(stage.databases[self.replica], self.queue))[1]:
            pass

    def expect(self, model: Model) -> None:
        def gate(job: Job) -> str:
            return job.gate

        mine = sorted((job for job in model.jobs.values() if job.queue == self.queue), key=gate)
        for _, those in groupby(mine, gate):
            jobs = sorted(those, key=lambda job: (job.rank, job.seq))
            room = GATES[self.queue] - sum(job.facts.standing in RUNNING for job in jobs)
            for place, job in enumerate(job for job in jobs if job.facts.standing in _AT_THE_GATE):
                if place < room and job.facts.standing is Standing.BLOCKED:
                    model.befall(job, Event.ADMIT)
                elif place >= room and job.facts.standing is Standing.READY:
                    model.befall(job, Event.OVERTAKEN)

    def __str__(self) -> str:
        return f"gates of {self.queue} are looked after"


@dataclass(frozen=True)
class Pause:
    """Nothing of a queue is claimed any more, or again."""

    replica: int
    queue: str
    paused: bool

    async def do(self, stage: Stage) -> bool:
        return await queues.pause_queue(stage.databases[self.replica], self.queue, "operator", paused=self.paused)

    def expect(self, model: Model) -> bool:
        (model.paused.add if self.paused else model.paused.discard)(self.queue)
        return True

    def __str__(self) -> str:
        return f"{self.queue} is {'paused' if self.paused else 'resumed'}"
