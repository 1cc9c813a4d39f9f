"""Schedules as rows, and the one step by which a due time has its turn."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb

from jobwire_server.domain.cron import Cron
from jobwire_server.domain.jobs import NO_LABELS, Labels, NewJob
from jobwire_server.domain.queues import NOTHING_SAID, JobOptionsPatch
from jobwire_server.domain.schedules import Every, MissedRuns, Once, Schedule, ScheduleSpec, Timing

from .database import Connection, Database, Row

_NOBODY = UUID(int=0)
_OF_EACH_JOB = {"id", "client_id", "data", "start_after", "start_in_ms"}
"""What a schedule does not say of its jobs, or what has a column of its own."""


class Turn(NamedTuple):
    """What becomes of the due time of a schedule.

    `next` is the due time after it; `runs` how many jobs are made, `last_due` and `job_id` of the last of them. `error`
    is why there is none. With `pause_ms` the schedule is not looked at before that.
    """

    next: datetime | None
    runs: int = 0
    last_due: datetime | None = None
    job_id: UUID | None = None
    error: str | None = None
    pause_ms: int | None = None


async def now(database: Database) -> datetime:
    """What time it is."""
    moment: datetime = (await database.once("database_time"))[0].now
    return moment


async def due(database: Database, limit: int) -> list[tuple[Schedule | None, datetime]]:
    """The schedules to be looked at now, those first that have waited longest; each with what time it is.

    None stands for one that says what only newer servers understand.
    """
    return [(_known(row), row.now) for row in await database.once("due_schedules", {"limit": limit})]


async def take_turn(database: Database, connection: Connection, schedule: Schedule, turn: Turn) -> bool:
    """Has the due time of `schedule` had its turn; whether that was so.

    It is not if the time had its turn already, or is about to have it elsewhere, if the schedule was changed, or if the
    time has not come. The row is held until the end of the transaction.
    """
    params = {
        "id": schedule.id,
        "revision": schedule.revision,
        "due": schedule.next_run_at,
        "next": turn.next,
        "runs": turn.runs,
        "last_due": turn.last_due,
        "job_id": turn.job_id,
        "error": turn.error,
        "pause_ms": turn.pause_ms,
    }
    return bool(await database.run(connection, "move_schedule", params))


class Edit:
    """One schedule, or its absence, which nobody else changes meanwhile; `now` is what time it is."""

    def __init__(self, database: Database, connection: Connection, now: datetime, found: Schedule | None) -> None:
        self._database = database
        self._connection = connection
        self.now = now
        self.found = found

    async def put(self, spec: ScheduleSpec, next_run_at: datetime | None) -> bool:
        """Makes it, or replaces what it was; False if somebody else has made it in this moment."""
        statement = "create_schedule" if self.found is None else "replace_schedule"
        made = await self._database.run(self._connection, statement, _columns(spec) | {"next": next_run_at})
        return self.found is not None or bool(made)

    async def resume(self, next_run_at: datetime | None) -> None:
        """Resumes it."""
        assert self.found is not None
        params = {"id": self.found.id, "next": next_run_at}
        await self._database.run(self._connection, "resume_schedule", params)


@contextlib.asynccontextmanager
async def editing(database: Database, name: str) -> AsyncIterator[Edit]:
    """A transaction on one schedule."""
    async with database.transaction() as connection:
        found = await database.run(connection, "lock_schedule", {"name": name})
        # Not before: the lock may have been waited for.
        [clock] = await database.run(connection, "database_time")
        yield Edit(database, connection, clock.now, _schedule(found[0]) if found else None)


async def get(database: Database, name: str) -> Schedule | None:
    """A schedule by its name."""
    rows = await database.once("get_schedule", {"name": name})
    return _schedule(rows[0]) if rows else None


async def list_schedules(database: Database, queue: str | None, after: str | None, limit: int) -> list[Schedule]:
    """Schedules by name, after `after`; of all queues if none is named."""
    params = {"queue": queue, "after": after, "limit": limit}
    return [_schedule(row) for row in await database.once("list_schedules", params)]


async def pause(database: Database, name: str) -> None:
    """Pauses a schedule, if there is one that is not."""
    await database.once("pause_schedule", {"name": name})


async def delete(database: Database, name: str) -> bool:
    """Deletes a schedule; whether there was one."""
    return bool(await database.once("delete_schedule", {"name": name}))


async def note_run(database: Database, schedule: Schedule, job_id: UUID) -> None:
    """Notes a run that was asked for."""
    await database.once("note_run", {"id": schedule.id, "job_id": job_id})


async def note_refused(database: Database, schedule: Schedule, jobs: int, job_id: UUID | None, why: str) -> None:
    """Notes that of the jobs of a turn so many were not stored, `job_id` was the last that was, and why."""
    await database.once("note_refused", {"id": schedule.id, "jobs": jobs, "job_id": job_id, "error": why})


def _columns(spec: ScheduleSpec) -> dict[str, Any]:
    timing = spec.timing
    return {
        "name": spec.name,
        "queue": spec.queue,
        "cron": timing.line if isinstance(timing, Cron) else None,
        "time_zone": timing.zone if isinstance(timing, Cron) else None,
        "every_ms": timing.ms if isinstance(timing, Every) else None,
        "anchor": timing.anchor if isinstance(timing, Every) else None,
        "once_at": timing.at if isinstance(timing, Once) else None,
        "missed": spec.missed,
        "missed_limit": spec.missed_limit,
        "tolerance_ms": spec.tolerance_ms,
        "data": spec.job.data,
        "job": Jsonb(_said_of(spec.job)),
    }


def _said_of(job: NewJob) -> dict[str, Any]:
    said = {name: value for name, value in job._asdict().items() if name not in _OF_EACH_JOB and value}
    return said | {"options": _given(job.options), "labels": _given(job.labels)}


def _given(of: JobOptionsPatch | Labels) -> dict[str, Any]:
    return {name: value for name in of.__slots__ if (value := getattr(of, name)) is not None}


def _job(data: str, said: dict[str, Any]) -> NewJob:
    options, labels = said.pop("options"), said.pop("labels")
    return NewJob(
        _NOBODY,
        data,
        **said,
        options=JobOptionsPatch(**options) if options else NOTHING_SAID,
        labels=Labels(**labels) if labels else NO_LABELS,
    )


def _timing(row: Row) -> Timing:
    if row.cron is not None:
        return Cron(row.cron, row.time_zone)
    return Once(row.once_at) if row.once_at is not None else Every(row.every_ms, row.anchor)


def _known(row: Row) -> Schedule | None:
    try:
        return _schedule(row)
    except (TypeError, ValueError):
        return None


def _schedule(row: Row) -> Schedule:
    return Schedule(
        id=row.id,
        spec=ScheduleSpec(
            name=row.name,
            queue=row.queue,
            job=_job(row.data, row.job),
            timing=_timing(row),
            missed=MissedRuns(row.missed),
            missed_limit=row.missed_limit,
            tolerance_ms=row.tolerance_ms,
        ),
        paused=row.paused,
        next_run_at=row.next_run_at,
        revision=row.revision,
        runs=row.runs,
        last_due_at=row.last_due_at,
        last_run_at=row.last_run_at,
        last_job_id=row.last_job_id,
        last_error=row.last_error,
        last_error_at=row.last_error_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
