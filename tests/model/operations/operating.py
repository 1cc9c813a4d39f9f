"""An operator changes jobs: runs them now, tries them again, takes them back, deletes them."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from jobwire_server.domain.operations import Change, ChangeStatus
from jobwire_server.domain.transitions import Event, Standing
from jobwire_server.store import changing
from jobwire_server.store.actions import Entry
from tests.model.model import CANCEL_GRACE_MS, Model
from tests.model.names import name, names
from tests.model.stage import Stage

_ENTRY = Entry("operator", "job.change")


@dataclass(frozen=True)
class Operate:
    """A change of some jobs of one queue."""

    replica: int
    queue: str
    ids: tuple[UUID, ...]
    what: Change

    async def do(self, stage: Stage) -> dict[str, str]:
        batch = changing.Batch(self.queue, sorted(self.ids), CANCEL_GRACE_MS)
        done = await changing.change(stage.databases[self.replica], batch, self.what, _ENTRY)
        return {name(job_id): status.name for job_id, status in done.statuses.items()}

    def expect(self, model: Model) -> dict[str, str]:
        return {name(job_id): self._one(model, job_id).name for job_id in sorted(self.ids)}

    def _one(self, model: Model, job_id: UUID) -> ChangeStatus:
        job, over = model.jobs.get((self.queue, job_id)), model.newest_outcome(self.queue, job_id)
        if job is None and over is None:
            return ChangeStatus.NOT_FOUND
        done = False
        match self.what:
            case Change.DELETE:
                done = model.delete(self.queue, job_id)
            case Change.RETRY | Change.RESUME if job is None and over is not None:
                event = Event.RETRY if self.what is Change.RETRY else Event.RESUME
                done = model.revive(over, event)
            case Change.RUN if job is not None and job.facts.standing is Standing.SCHEDULED:
                model.befall(job, Event.RUN, later=False)
                done = True
            case Change.RELEASE if job is not None and job.lease is not None:
                model.befall(job, Event.RETURNED)
                done = True
        return ChangeStatus.CHANGED if done else ChangeStatus.WRONG_STATE

    def __str__(self) -> str:
        return f"operator: {self.what} in {self.queue}: {names(self.ids)}"
