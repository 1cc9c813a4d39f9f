"""The calls of AdminService about schedules."""

# ruff: noqa: N802, ARG002  (names and arguments are gRPC's)

from __future__ import annotations

from typing import Any

import grpc.aio

from jobwire.v1 import queue_service_pb2
from jobwire.v1 import schedule_pb2 as pb
from jobwire_server.api import answers
from jobwire_server.api import schedule_requests as requests
from jobwire_server.api.answers import duration, instant, timestamp
from jobwire_server.api.calls import this_call
from jobwire_server.api.fields import broken
from jobwire_server.broker.broker import Broker
from jobwire_server.domain.cron import Cron
from jobwire_server.domain.jobs import NewJob
from jobwire_server.domain.schedules import Every, Once, Schedule, Timing

Context = grpc.aio.ServicerContext[Any, Any]


class ScheduleCalls:
    """A part of AdminServicer."""

    _broker: Broker

    async def PutSchedule(self, request: pb.PutScheduleRequest, context: Context) -> pb.PutScheduleResponse:
        spec = requests.schedule_spec(request.schedule)
        this_call().note(schedule=spec.name, queue=spec.queue)
        stored, created = await self._broker.schedules.put(spec)
        this_call().note(created=created)
        return pb.PutScheduleResponse(schedule=_schedule(stored), created=created)

    async def GetSchedule(self, request: pb.GetScheduleRequest, context: Context) -> pb.GetScheduleResponse:
        found = await self._broker.schedules.get(_named(request.name))
        return pb.GetScheduleResponse(schedule=_schedule(found))

    async def ListSchedules(self, request: pb.ListSchedulesRequest, context: Context) -> pb.ListSchedulesResponse:
        page = requests.schedule_page(request)
        found = await self._broker.schedules.list(page.queue, page.after, page.size + 1)
        shown = found[: page.size]
        return pb.ListSchedulesResponse(
            schedules=map(_schedule, shown), next_page_token=shown[-1].spec.name if len(found) > page.size else ""
        )

    async def DeleteSchedule(self, request: pb.DeleteScheduleRequest, context: Context) -> pb.DeleteScheduleResponse:
        await self._broker.schedules.delete(_named(request.name))
        return pb.DeleteScheduleResponse()

    async def PauseSchedule(self, request: pb.PauseScheduleRequest, context: Context) -> pb.PauseScheduleResponse:
        paused = await self._broker.schedules.pause(_named(request.name))
        return pb.PauseScheduleResponse(schedule=_schedule(paused))

    async def ResumeSchedule(self, request: pb.ResumeScheduleRequest, context: Context) -> pb.ResumeScheduleResponse:
        resumed = await self._broker.schedules.resume(_named(request.name))
        return pb.ResumeScheduleResponse(schedule=_schedule(resumed))

    async def RunSchedule(self, request: pb.RunScheduleRequest, context: Context) -> pb.RunScheduleResponse:
        name, job_id = _named(request.name), requests.run_id(request)
        published = await self._broker.schedules.run(name, job_id, repeatable=bool(request.job_id))
        this_call().note(job_id=str(job_id), created=published.created)
        return pb.RunScheduleResponse(
            job_id=str(published.met or published.id),
            created=published.created,
            reason=queue_service_pb2.NotCreatedReason.ValueType(published.reason or 0),
            met_job_id=str(published.met or ""),
        )

    async def PreviewSchedule(self, request: pb.PreviewScheduleRequest, context: Context) -> pb.PreviewScheduleResponse:
        count = requests.preview_count(request)
        match request.WhichOneof("target"):
            case "name":
                found, dues = await self._broker.schedules.preview_stored(_named(request.name), count)
                timing = found.spec.timing
            case "schedule":
                timing = requests.timing(request.schedule)
                dues = await self._broker.schedules.preview(timing, count)
            case _:
                raise broken("target", "must be one of `name` and `schedule`")
        zone = timing.zone if isinstance(timing, Cron) else ""
        return pb.PreviewScheduleResponse(due_times=map(instant, dues), time_zone=zone)


def _named(name: str) -> str:
    this_call().note(schedule=requests.check_name(name))
    return name


def _schedule(schedule: Schedule) -> pb.Schedule:
    spec = schedule.spec
    message = pb.Schedule(
        name=spec.name,
        queue=spec.queue,
        job=_job(spec.job),
        missed=pb.MissedRuns.ValueType(spec.missed),
        missed_limit=spec.missed_limit,
        tolerance=duration(spec.tolerance_ms),
        state=pb.ScheduleState.ValueType(schedule.state),
        next_run_time=timestamp(schedule.next_run_at),
        last_due_time=timestamp(schedule.last_due_at),
        last_run_time=timestamp(schedule.last_run_at),
        last_job_id=str(schedule.last_job_id or ""),
        run_count=schedule.runs,
        last_error=schedule.last_error,
        last_error_time=timestamp(schedule.last_error_at),
        create_time=timestamp(schedule.created_at),
        update_time=timestamp(schedule.updated_at),
    )
    _say_when(message, spec.timing)
    return message


def _say_when(message: pb.Schedule, timing: Timing) -> None:
    match timing:
        case Cron():
            message.cron.CopyFrom(pb.CronTiming(line=timing.line, time_zone=timing.zone))
        case Every():
            message.every.CopyFrom(duration(timing.ms))
        case Once():
            message.once.CopyFrom(instant(timing.at))


def _job(job: NewJob) -> queue_service_pb2.JobSpec:
    """What a schedule says of its jobs: only what was said."""
    labels = job.labels
    return queue_service_pb2.JobSpec(
        data=job.data,
        priority=job.priority,
        headers=answers.headers(job.headers),
        options=answers.options_said(job.options),
        key=labels.key or "",
        group=answers.group(labels),
        throttle=None if labels.throttle_ms is None else duration(labels.throttle_ms),
        debounce=None if labels.debounce_ms is None else duration(labels.debounce_ms),
        unique_for=None if labels.unique_ms is None else duration(labels.unique_ms),
    )
