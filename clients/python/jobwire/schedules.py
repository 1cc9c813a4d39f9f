"""Schedules: jobs that are made by themselves, at times of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from jobwire.connection import Connection
from jobwire.convert import options_from, published_from, spec_from
from jobwire.errors import InvalidArgument
from jobwire.model import JobOptions, NewJob, Published
from jobwire.v1 import schedule_pb2 as pb
from jobwire.v1.queue_service_pb2 import PublishResult
from jobwire.wire import (
    Seconds,
    from_duration,
    from_json,
    from_timestamp,
    new_job_id,
    to_duration,
    to_timestamp,
)


@dataclass(frozen=True)
class Cron:
    """A cron line, and the time zone by whose clocks it goes."""

    line: str
    """Five fields (minute, hour, day of month, month, day of week), or six with the seconds first."""
    time_zone: str = "UTC"
    """A name of the IANA database, such as `Europe/Berlin`."""


When = Cron | timedelta | datetime
"""By a cron line, each time so long has passed, or once at a point in time."""


class MissedRuns(StrEnum):
    """What becomes of due times that are past for longer than the tolerance when they can have their turn."""

    UNSPECIFIED = "unspecified"
    """A rule that this version of the client does not know."""
    SKIP = "skip"
    """Nothing."""
    ONCE = "once"
    """One job stands for all of them."""
    ALL = "all"
    """Each has its job; of more than `missed_limit` the last ones."""


class ScheduleState(StrEnum):
    """Where a schedule stands."""

    UNSPECIFIED = "unspecified"
    """A state that this version of the client does not know."""
    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"
    """No due time is to come."""


@dataclass(frozen=True)
class ScheduleInfo:
    """A schedule as it stood when the server answered."""

    name: str
    queue: str
    when: When
    data: Any
    """The payload of its jobs, decoded."""
    headers: dict[str, str]
    priority: int
    options: JobOptions
    """What differs from the queue's options; None where nothing was said."""
    missed: MissedRuns
    missed_limit: int
    tolerance: float
    """How late a run may be without having been missed, in seconds."""
    state: ScheduleState
    next_run_at: datetime | None
    """The first due time that has not had its turn; None if it is paused or has ended."""
    last_due_at: datetime | None
    """The last due time for which there is a job."""
    last_run_at: datetime | None
    """When a job was made last, by a due time or by `run_schedule`."""
    last_job_id: str
    run_count: int
    last_error: str
    """Why a due time went without a job or had to wait, the last time that this was so; empty if it never was."""
    last_error_at: datetime | None
    created_at: datetime
    updated_at: datetime
    """When somebody changed it last."""
    key: str = ""
    """The key of its jobs; empty if they have none."""
    created: bool = field(default=False, compare=False)
    """Whether the put_schedule call that returned this made the schedule."""


class ScheduleCalls:
    """The part of Admin that looks after schedules. Every method raises JobwireError."""

    _connection: Connection
    _timeout: float

    async def put_schedule(
        self,
        name: str,
        queue: str,
        when: When,
        job: NewJob | None = None,
        *,
        missed: MissedRuns | str = MissedRuns.SKIP,
        missed_limit: int | None = None,
        tolerance: Seconds | None = None,
    ) -> ScheduleInfo:
        """Make a schedule, or replace what the one of this name was; whether it is paused stays.

        As long as `when` is the same, its due times stay as they are: call this at each start of a program.

        Args:
            name: 1 to 100 letters, digits, `_`, `-`, `.`, `:` or `/`.
            queue: where its jobs go; made if it does not exist.
            when: a Cron; a timedelta, 1 s to 3650 days, counted from now; or a datetime with a time zone, to come.
            job: what its jobs have in common; None: no payload. Its id does not count; it may not say when to start.
            missed: what becomes of due times that were missed.
            missed_limit: how many are made up for with `all`: 1 to 1000, default 100.
            tolerance: how late a run may be without having been missed: 0 s to 7 days, default 60 s.
        """
        schedule = _timing(when)
        schedule.name, schedule.queue = name, queue
        schedule.job.CopyFrom(spec_from(job or NewJob(None)))
        schedule.job.id = ""
        schedule.missed = _MISSED_NUMBERS[MissedRuns(missed)]
        if missed_limit is not None:
            schedule.missed_limit = missed_limit
        if tolerance is not None:
            schedule.tolerance.CopyFrom(to_duration(tolerance))
        request = pb.PutScheduleRequest(schedule=schedule)
        response = await self._connection.call(self._connection.admin.PutSchedule, request, self._timeout)
        return _info(response.schedule, created=response.created)

    async def get_schedule(self, name: str) -> ScheduleInfo:
        """Return a schedule. Raises NotFound."""
        request = pb.GetScheduleRequest(name=name)
        response = await self._connection.call(self._connection.admin.GetSchedule, request, self._timeout)
        return _info(response.schedule)

    async def list_schedules(self, queue: str = "") -> AsyncIterator[ScheduleInfo]:
        """Iterate over all schedules by name, or over those of one queue, fetching page by page."""
        request = pb.ListSchedulesRequest(queue=queue)
        while True:
            response = await self._connection.call(self._connection.admin.ListSchedules, request, self._timeout)
            for schedule in response.schedules:
                yield _info(schedule)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def delete_schedule(self, name: str) -> None:
        """Delete a schedule; the jobs it has made stay. Raises NotFound."""
        request = pb.DeleteScheduleRequest(name=name)
        await self._connection.call(self._connection.admin.DeleteSchedule, request, self._timeout)

    async def pause_schedule(self, name: str) -> ScheduleInfo:
        """Have a schedule make no jobs until it is resumed; what would be due meanwhile is not made up for."""
        request = pb.PauseScheduleRequest(name=name)
        response = await self._connection.call(self._connection.admin.PauseSchedule, request, self._timeout)
        return _info(response.schedule)

    async def resume_schedule(self, name: str) -> ScheduleInfo:
        """Have a paused schedule go on with the first due time from now on."""
        request = pb.ResumeScheduleRequest(name=name)
        response = await self._connection.call(self._connection.admin.ResumeSchedule, request, self._timeout)
        return _info(response.schedule)

    async def run_schedule(self, name: str, *, job_id: str | None = None) -> Published:
        """Make a job of a schedule now, paused or not; its due times stay as they are.

        Args:
            name: the schedule. Raises NotFound.
            job_id: UUID for the job, with which the call may be repeated. None: one is made.
        """
        request = pb.RunScheduleRequest(name=name, job_id=job_id or new_job_id())
        response = await self._connection.call(self._connection.admin.RunSchedule, request, self._timeout)
        return published_from(
            PublishResult(
                job_id=response.job_id,
                created=response.created,
                reason=response.reason,
                met_job_id=response.met_job_id,
            )
        )

    async def preview_schedule(self, schedule: str | When, count: int = 10) -> list[datetime]:
        """Return when a schedule is due next, or what may become one, by the clock of the server's database.

        Args:
            schedule: the name of one, or when it is to be due.
            count: how many due times, 1 to 100. The list is shorter if there are no more.
        """
        request = pb.PreviewScheduleRequest(count=count)
        if isinstance(schedule, str):
            request.name = schedule
        else:
            request.schedule.CopyFrom(_timing(schedule))
        response = await self._connection.call(self._connection.admin.PreviewSchedule, request, self._timeout)
        return [from_timestamp(due) for due in response.due_times]


_MISSED = {value: MissedRuns(name.removeprefix("MISSED_RUNS_").lower()) for name, value in pb.MissedRuns.items()}
_MISSED_NUMBERS = {missed: number for number, missed in _MISSED.items()}
_STATES = {
    value: ScheduleState(name.removeprefix("SCHEDULE_STATE_").lower()) for name, value in pb.ScheduleState.items()
}


def _timing(when: When) -> pb.Schedule:
    """A schedule of which nothing but that is said."""
    try:
        match when:
            case Cron():
                return pb.Schedule(cron=pb.CronTiming(line=when.line, time_zone=when.time_zone))
            case timedelta():
                return pb.Schedule(every=to_duration(when))
            case datetime():
                return pb.Schedule(once=to_timestamp(when))
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"when: {error}", reason="INVALID_ARGUMENT") from error


def _when(schedule: pb.Schedule) -> When:
    match schedule.WhichOneof("timing"):
        case "cron":
            return Cron(schedule.cron.line, schedule.cron.time_zone)
        case "every":
            return timedelta(seconds=from_duration(schedule.every))
        case _:
            return from_timestamp(schedule.once)


def _info(schedule: pb.Schedule, *, created: bool = False) -> ScheduleInfo:
    moments = {of.name: from_timestamp(value) for of, value in schedule.ListFields() if isinstance(value, Timestamp)}
    return ScheduleInfo(
        name=schedule.name,
        queue=schedule.queue,
        when=_when(schedule),
        data=from_json(schedule.job.data),
        headers=dict(schedule.job.headers),
        priority=schedule.job.priority,
        options=options_from(schedule.job.options),
        missed=_MISSED.get(schedule.missed, MissedRuns.UNSPECIFIED),
        missed_limit=schedule.missed_limit,
        tolerance=from_duration(schedule.tolerance),
        state=_STATES.get(schedule.state, ScheduleState.UNSPECIFIED),
        next_run_at=moments.get("next_run_time"),
        last_due_at=moments.get("last_due_time"),
        last_run_at=moments.get("last_run_time"),
        last_job_id=schedule.last_job_id,
        run_count=schedule.run_count,
        last_error=schedule.last_error,
        last_error_at=moments.get("last_error_time"),
        created_at=from_timestamp(schedule.create_time),
        updated_at=from_timestamp(schedule.update_time),
        key=schedule.job.key,
        created=created,
    )
