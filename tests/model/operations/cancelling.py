"""An operator cancels jobs, wherever they stand."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from jobwire_server.domain.jobs import CancelStatus
from jobwire_server.domain.transitions import WAITING, Event
from jobwire_server.store import settling
from tests.model.model import CANCEL_GRACE_MS, Model
from tests.model.names import name, names
from tests.model.stage import Stage


@dataclass(frozen=True)
class Cancel:
    """Jobs of one queue are cancelled."""

    replica: int
    queue: str
    ids: tuple[UUID, ...]

    async def do(self, stage: Stage) -> tuple[dict[str, str], list[str]]:
        done = await settling.cancel(stage.databases[self.replica], self.queue, self.ids, CANCEL_GRACE_MS)
        statuses = {name(job_id): status.name for job_id, status in done.statuses.items()}
        return statuses, sorted(name(stop.handle.job_id) for stop in done.stops)

    def expect(self, model: Model) -> tuple[dict[str, str], list[str]]:
        statuses: dict[str, str] = {}
        stops = []
        for job_id in self.ids:
            job = model.jobs.get((self.queue, job_id))
            if job is None:
                over = model.newest_outcome(self.queue, job_id)
                status = CancelStatus.NOT_FOUND if over is None else CancelStatus.ALREADY_FINISHED
            elif job.facts.standing in WAITING:
                status = CancelStatus.CANCELLED
                model.befall(job, Event.CANCEL)
            else:
                status = CancelStatus.REQUESTED
                stops.append(name(job_id))
                if job.stop_at is None:
                    assert job.lease is not None
                    job.stop_at = model.claims[job.lease.token].age + CANCEL_GRACE_MS
                model.befall(job, Event.CANCEL)
            statuses[name(job_id)] = status.name
        return statuses, sorted(stops)

    def __str__(self) -> str:
        return f"cancel in {self.queue}: {names(self.ids)}"
