"""Time passes: jobs become due, limits and graces are over, ids are forgotten, a backup is restored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from jobwire_server.domain.transitions import Event, Standing
from jobwire_server.store import upkeep
from tests.model.model import CANCEL_GRACE_MS, Model
from tests.model.names import name, names
from tests.model.stage import Stage


@dataclass(frozen=True)
class Due:
    """The time of some jobs comes, and somebody looks."""

    replica: int
    jobs: tuple[tuple[str, UUID], ...]

    async def do(self, stage: Stage) -> list[str]:
        await stage.execute(
            "WITH ticket AS (UPDATE {s}.scheduled SET start_after = clock_timestamp() - interval '1 second'"
            " WHERE id = ANY (%(ids)s) RETURNING queue, id) UPDATE {s}.live_job j"
            " SET start_after = least(j.start_after, clock_timestamp() - interval '1 second') FROM ticket t"
            " WHERE j.queue = t.queue AND j.id = t.id",
            {"ids": [job_id for _, job_id in self.jobs]},
        )
        return sorted(await upkeep.promote_due(stage.databases[self.replica]))

    def expect(self, model: Model) -> list[str]:
        due = set()
        ids = {job_id for _, job_id in self.jobs}
        for job in model.jobs.values():
            if job.id in ids and job.facts.standing is Standing.SCHEDULED:
                model.befall(job, Event.DUE, later=False)
                due.add(job.queue)
        return sorted(due)

    def __str__(self) -> str:
        return f"due: {names(job_id for _, job_id in self.jobs)}"


@dataclass(frozen=True)
class Pass:
    """So many milliseconds pass for all that one claim took."""

    token: UUID
    ms: int

    async def do(self, stage: Stage) -> None:
        await stage.execute(
            "WITH passed AS (UPDATE {s}.claim SET claimed_at = claimed_at - %(ms)s * interval '1 ms',"
            " check_at = check_at - %(ms)s * interval '1 ms' WHERE token = %(token)s RETURNING queue, ids, attempts)"
            " UPDATE {s}.live_job j SET expires_at = expires_at - %(ms)s * interval '1 ms',"
            " stop_at = stop_at - %(ms)s * interval '1 ms'"
            " FROM passed p CROSS JOIN LATERAL unnest(p.ids, p.attempts) AS m (id, attempt)"
            " WHERE j.queue = p.queue AND j.id = m.id AND j.attempt = m.attempt",
            {"ms": self.ms, "token": self.token},
        )

    def expect(self, model: Model) -> None:
        if self.token in model.claims:
            model.claims[self.token].age += self.ms

    def __str__(self) -> str:
        return f"{self.ms / 1000:.0f} s pass for {name(self.token)}"


@dataclass(frozen=True)
class Limits:
    """A replica sees to all whose time limit or stop grace is over."""

    replica: int

    async def do(self, stage: Stage) -> tuple[list[str], int]:
        stops: list[str] = []
        settled = 0
        while (looked := await upkeep.check_limits(stage.databases[self.replica], CANCEL_GRACE_MS)) is not None:
            assert looked.blocked is None
            stops += [name(stop.handle.job_id) for stop in looked.stops]
            settled += sum(looked.settled.values())
        return sorted(stops), settled

    def expect(self, model: Model) -> tuple[list[str], int]:
        overdue = list(model.overdue())
        for job, event in overdue:
            if event is Event.LIMIT:
                assert job.lease is not None
                job.stop_at = model.claims[job.lease.token].age + CANCEL_GRACE_MS
            model.befall(job, event)
        stops = sorted(name(job.id) for job, event in overdue if event is Event.LIMIT)
        return stops, len(overdue) - len(stops)

    def __str__(self) -> str:
        return "limits are looked at"


@dataclass(frozen=True)
class Day:
    """A day passes after a job's end, so that its id may be used again."""

    job: tuple[str, UUID]

    async def do(self, stage: Stage) -> None:
        await stage.execute(
            "UPDATE {s}.archive SET finished_at = finished_at - interval '25 hours'"
            " WHERE queue = %(queue)s AND id = %(id)s",
            {"queue": self.job[0], "id": self.job[1]},
        )

    def expect(self, model: Model) -> None:
        for each in model.finished:
            if (each.queue, each.id) == self.job:
                each.recent = False

    def __str__(self) -> str:
        return f"a day passes after the end of {name(self.job[1])}"


@dataclass(frozen=True)
class Restore:
    """All sessions are void, and what was active waits again."""

    replica: int

    async def do(self, stage: Stage) -> tuple[int, int, dict[str, Any]]:
        done = await upkeep.recover(stage.databases[self.replica])
        return done.sessions, done.claims, done.jobs

    def expect(self, model: Model) -> tuple[int, int, dict[str, Any]]:
        count = len(model.sessions), len(model.claims)
        back = model.end_all(model.leases(), Event.RESTORE, later=False)
        model.sessions.clear()
        model.claims.clear()
        return *count, back

    def __str__(self) -> str:
        return "a backup is restored"
