"""Requests about schedules, checked and turned into the domain's values.

Whether a time is past is left to the broker, which asks the database.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import uuid_utils.compat

from jobwire.v1 import schedule_pb2 as pb
from jobwire_server.api.fields import broken, duration_ms, optional_duration_ms, optional_whole, timestamp, uuid, whole
from jobwire_server.api.requests import new_job
from jobwire_server.broker.scheduler import OWN_HEADERS
from jobwire_server.domain import limits
from jobwire_server.domain.cron import check_cron
from jobwire_server.domain.queues import check_queue_name
from jobwire_server.domain.schedules import Every, MissedRuns, Once, ScheduleSpec, Timing

_NAME = re.compile(limits.SCHEDULE_NAME)
_PER_PAGE, _PER_PAGE_MAX = 50, 100
_PREVIEWED = 10
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SchedulePage:
    """Which schedules to list: up to `size`, by name, after `after`, of one queue or of all."""

    queue: str | None
    after: str | None
    size: int


def check_name(name: str, at: str = "name") -> str:
    """The name of a schedule."""
    if not _NAME.fullmatch(name):
        raise broken(at, f"must be 1 to 100 letters, digits, `_`, `-`, `.`, `:` or `/`; got {name[:120]!r}")
    return name


def schedule_spec(message: pb.Schedule) -> ScheduleSpec:
    """What somebody says of a schedule, defaults filled in."""
    name = check_name(message.name, "schedule.name")
    queue = check_queue_name(message.queue, "schedule.queue")
    if given := "id" if message.job.id else message.job.WhichOneof("start"):
        raise broken(f"schedule.job.{given}", "must be absent: each job has an id and a time of its own")
    if len(message.job.headers) > limits.HEADERS - OWN_HEADERS:
        most = limits.HEADERS - OWN_HEADERS
        raise broken("schedule.job.headers", f"must have 0 to {most} entries; got {len(message.job.headers)}")
    missed_limit = optional_whole(message, "missed_limit", "schedule", 1, limits.MISSED_LIMIT_MAX)
    tolerance_ms = optional_duration_ms(message, "tolerance", "schedule", 0, limits.TOLERANCE_MAX)
    return ScheduleSpec(
        name=name,
        queue=queue,
        # What the queue takes is the broker's to say.
        job=new_job(message.job, "schedule.job", limits.DATA_BYTES_MAX),
        timing=timing(message),
        missed=_missed(message.missed),
        missed_limit=limits.MISSED_LIMIT_DEFAULT if missed_limit is None else missed_limit,
        tolerance_ms=limits.TOLERANCE_DEFAULT if tolerance_ms is None else tolerance_ms,
    )


def timing(message: pb.Schedule) -> Timing:
    """When a schedule is due. An interval has no anchor yet."""
    match message.WhichOneof("timing"):
        case "cron":
            return check_cron(message.cron.line, message.cron.time_zone, "schedule.cron")
        case "every":
            return Every(duration_ms(message.every, "schedule.every", limits.EVERY_MIN, limits.EVERY_MAX), _BEGINNING)
        case "once":
            return Once(timestamp(message.once, "schedule.once", limits.START_AHEAD_MAX))
        case _:
            raise broken("schedule", "must say when it is due: one of `cron`, `every` and `once`")


def _missed(number: int) -> MissedRuns:
    try:
        return MissedRuns(number or MissedRuns.SKIP)
    except ValueError:
        raise broken("schedule.missed", f"must be from MISSED_RUNS_SKIP to MISSED_RUNS_ALL; got {number}") from None


def schedule_page(request: pb.ListSchedulesRequest) -> SchedulePage:
    """Which schedules to list."""
    return SchedulePage(
        queue=check_queue_name(request.queue) if request.queue else None,
        after=check_name(request.page_token, "page_token") if request.page_token else None,
        size=whole(request.page_size, "page_size", 0, _PER_PAGE_MAX) or _PER_PAGE,
    )


def run_id(request: pb.RunScheduleRequest) -> UUID:
    """The id of the job that is asked for."""
    return uuid(request.job_id, "job_id") if request.job_id else uuid_utils.compat.uuid7()


def preview_count(request: pb.PreviewScheduleRequest) -> int:
    """How many due times are asked for."""
    return whole(request.count, "count", 0, limits.SCHEDULE_RUNS_PREVIEWED) or _PREVIEWED
