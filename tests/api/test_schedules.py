"""Schedules over gRPC: what is stored and answered, and what is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from jobwire.v1 import schedule_pb2 as pb
from jobwire.v1.admin_service_pb2 import ListJobsRequest, Queue, UpdateQueueRequest
from jobwire.v1.job_pb2 import JobOptions
from jobwire.v1.queue_service_pb2 import GetJobRequest, JobSpec

from .conftest import Api, Eye, Serve
from .refusals import refused

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
NIGHTLY = pb.CronTiming(line="0 3 * * *", time_zone="Europe/Berlin")


def schedule(**changes: object) -> pb.Schedule:
    fields = {"name": "nightly", "queue": "reports", "job": JobSpec(data='{"a": 1}')} | changes
    if not {"cron", "every", "once"} & fields.keys():
        fields["cron"] = NIGHTLY
    return pb.Schedule(**fields)


async def put(api: Api, **changes: object) -> pb.Schedule:
    answer = await api.admin.PutSchedule(pb.PutScheduleRequest(schedule=schedule(**changes)))
    stored: pb.Schedule = answer.schedule
    return stored


@pytest.fixture(autouse=True)
async def none_stays(shared_eye: Eye) -> AsyncIterator[None]:
    yield
    if shared_eye.run("SELECT to_regclass('{}.schedule')")[0][0]:
        shared_eye.run("DELETE FROM {}.schedule")


async def test_what_is_said_is_answered(api: Api) -> None:
    options = JobOptions(retry_limit=0, retry_backoff=False, expire_in=Duration(seconds=7))
    said = schedule(
        job=JobSpec(data='{"a":  1}', priority=-3, headers={"h": "v"}, options=options),
        missed=pb.MISSED_RUNS_ALL,
        missed_limit=7,
        tolerance=Duration(seconds=90),
    )
    first = await api.admin.PutSchedule(pb.PutScheduleRequest(schedule=said))
    stored = first.schedule
    for name in ("name", "queue", "job", "cron", "missed", "missed_limit", "tolerance"):
        assert getattr(stored, name) == getattr(said, name), name
    assert first.created and stored.state == pb.SCHEDULE_STATE_ACTIVE
    assert stored.next_run_time.ToSeconds() > stored.create_time.ToSeconds() and stored.run_count == 0
    assert not stored.HasField("last_run_time") and not stored.last_error and not stored.last_job_id
    assert (await api.admin.GetSchedule(pb.GetScheduleRequest(name="nightly"))).schedule == stored
    again = await api.admin.PutSchedule(pb.PutScheduleRequest(schedule=stored))
    assert not again.created and again.schedule.next_run_time == stored.next_run_time


async def test_defaults(api: Api) -> None:
    stored = await put(api, job=None, every=Duration(seconds=60))
    assert stored.job == JobSpec(data="null") and stored.every == Duration(seconds=60)
    assert (stored.missed, stored.missed_limit, stored.tolerance.seconds) == (pb.MISSED_RUNS_SKIP, 100, 60)
    assert stored.next_run_time.ToNanoseconds() - stored.create_time.ToNanoseconds() in range(59 * 10**9, 61 * 10**9)
    assert (await put(api, cron=pb.CronTiming(line="0 3 * * *"))).cron.time_zone == "UTC"


async def test_pages(api: Api) -> None:
    names = sorted(f"s/{n}" for n in range(7))
    for name in names:
        await put(api, name=name, queue="odd" if int(name[-1]) % 2 else "even")
    request = pb.ListSchedulesRequest(page_size=3)
    found = []
    while True:
        answer = await api.admin.ListSchedules(request)
        found.append([each.name for each in answer.schedules])
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert found == [names[:3], names[3:6], names[6:]]
    odd = await api.admin.ListSchedules(pb.ListSchedulesRequest(queue="odd"))
    assert [each.name for each in odd.schedules] == ["s/1", "s/3", "s/5"]


async def test_pause_resume_run_and_delete(api: Api) -> None:
    stored = await put(api)
    paused = (await api.admin.PauseSchedule(pb.PauseScheduleRequest(name="nightly"))).schedule
    assert paused.state == pb.SCHEDULE_STATE_PAUSED and not paused.HasField("next_run_time")
    run = await api.admin.RunSchedule(pb.RunScheduleRequest(name="nightly"))
    job = (await api.queue.GetJob(GetJobRequest(queue="reports", job_id=run.job_id))).job
    assert (run.created, job.data) == (True, '{"a": 1}')
    assert dict(job.headers) == {"jobwire-schedule": "nightly"}
    for created in (True, False):
        again = await api.admin.RunSchedule(pb.RunScheduleRequest(name="nightly", job_id=ID))
        assert (again.job_id, again.created) == (ID, created)
    resumed = (await api.admin.ResumeSchedule(pb.ResumeScheduleRequest(name="nightly"))).schedule
    assert (resumed.state, resumed.next_run_time) == (pb.SCHEDULE_STATE_ACTIVE, stored.next_run_time)
    assert (resumed.run_count, resumed.last_job_id) == (2, ID)
    await api.admin.DeleteSchedule(pb.DeleteScheduleRequest(name="nightly"))
    assert len((await api.admin.ListJobs(ListJobsRequest(queue="reports"))).jobs) == 2


async def test_a_due_time_by_the_second(api: Api) -> None:
    await put(api, cron=pb.CronTiming(line="* * * * * *"), queue="seconds")
    async with asyncio.timeout(60):
        while not (jobs := (await api.admin.ListJobs(ListJobsRequest(queue="seconds"))).jobs):
            await asyncio.sleep(0.1)
    assert jobs[-1].headers["jobwire-due-time"].endswith("+00:00")
    assert jobs[-1].headers["jobwire-schedule"] == "nightly"


async def test_preview(api: Api) -> None:
    line = pb.CronTiming(line="30 2 29 3 *", time_zone="Europe/Berlin")
    answer = await api.admin.PreviewSchedule(pb.PreviewScheduleRequest(schedule=pb.Schedule(cron=line)))
    assert len(answer.due_times) == 10 and answer.time_zone == "Europe/Berlin"
    assert list(answer.due_times) == sorted(answer.due_times, key=Timestamp.ToNanoseconds)
    stored = await put(api)
    answer = await api.admin.PreviewSchedule(pb.PreviewScheduleRequest(name="nightly", count=2))
    assert len(answer.due_times) == 2 and answer.due_times[0] == stored.next_run_time
    soon = Timestamp(seconds=int(time.time()) + 3_600)
    answer = await api.admin.PreviewSchedule(pb.PreviewScheduleRequest(schedule=pb.Schedule(once=soon)))
    assert list(answer.due_times) == [soon] and not answer.time_zone


def cron(line: str, zone: str = "") -> dict[str, object]:
    return {"cron": pb.CronTiming(line=line, time_zone=zone)}


BAD_SCHEDULES: dict[str, tuple[dict[str, object], str, str]] = {
    "30 February": (cron("0 3 30 2 *"), "schedule.cron.line", "no such day is in these months"),
    "no line": (cron(""), "schedule.cron.line", "five fields"),
    "zone": (cron("0 3 * * *", "Mars/Olympus"), "schedule.cron.time_zone", "Europe/Berlin; got 'Mars/Olympus'"),
    "past": ({"once": Timestamp(seconds=1_700_000_000)}, "schedule.once", "must be to come; got 2023-11-14"),
    "far": ({"once": Timestamp(seconds=10**10)}, "schedule.once", "at most 3,650 days ahead"),
    "interval 0": ({"every": Duration()}, "schedule.every", "1 s to 3,650 days; got 0 s"),
    "interval -1": ({"every": Duration(seconds=-1)}, "schedule.every", "got -1 s"),
    "missed": ({"missed": 4}, "schedule.missed", "MISSED_RUNS_SKIP to MISSED_RUNS_ALL; got 4"),
    "missed_limit 0": ({"missed_limit": 0}, "schedule.missed_limit", "1 to 1,000; got 0"),
    "missed_limit": ({"missed_limit": 1_001}, "schedule.missed_limit", "1 to 1,000; got 1,001"),
    "tolerance": ({"tolerance": Duration(seconds=604_801)}, "schedule.tolerance", "0 s to 7 days"),
    "name": ({"name": "a b"}, "schedule.name", "1 to 100 letters"),
    "name long": ({"name": "a" * 101}, "schedule.name", "1 to 100 letters"),
    "queue": ({"queue": ""}, "schedule.queue", "1 to 63 letters"),
    "id": ({"job": JobSpec(id=ID)}, "schedule.job.id", "must be absent"),
    "start_in": ({"job": JobSpec(start_in=Duration())}, "schedule.job.start_in", "must be absent"),
    "data": ({"job": JobSpec(data="{")}, "schedule.job.data", "is not JSON"),
    "headers": (
        {"job": JobSpec(headers={str(n): "" for n in range(19)})},
        "schedule.job.headers",
        "0 to 18 entries; got 19",
    ),
}


@pytest.mark.parametrize(("changes", "place", "words"), BAD_SCHEDULES.values(), ids=BAD_SCHEDULES)
async def test_what_is_refused(api: Api, shared_eye: Eye, changes: dict[str, object], place: str, words: str) -> None:
    before = shared_eye.rows()
    answer = await refused(put(api, **({"queue": "nowhere"} | changes)))
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert answer.place == place and words in answer.message
    assert shared_eye.rows() == before


async def test_a_schedule_that_does_not_say_when(api: Api) -> None:
    answer = await refused(api.admin.PutSchedule(pb.PutScheduleRequest(schedule=pb.Schedule(name="a", queue="q"))))
    assert answer.place == "schedule" and "one of `cron`, `every` and `once`" in answer.message


async def test_a_payload_that_the_queue_does_not_take(api: Api) -> None:
    await put(api)
    await api.admin.UpdateQueue(UpdateQueueRequest(queue=Queue(name="reports", max_data_bytes=4)))
    for call in (put(api), api.admin.RunSchedule(pb.RunScheduleRequest(name="nightly"))):
        answer = await refused(call)
        assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "DATA_TOO_LARGE")
        assert "is 8 bytes, the queue allows 4" in answer.message
    await api.admin.UpdateQueue(UpdateQueueRequest(queue=Queue(name="reports", max_data_bytes=65_536)))


BAD_CALLS: dict[str, tuple[Message, str]] = {
    "get": (pb.GetScheduleRequest(name="a b"), "name"),
    "delete": (pb.DeleteScheduleRequest(), "name"),
    "pause": (pb.PauseScheduleRequest(name="\0"), "name"),
    "resume": (pb.ResumeScheduleRequest(name="é"), "name"),
    "run": (pb.RunScheduleRequest(name="?"), "name"),
    "run id": (pb.RunScheduleRequest(name="a", job_id="7"), "job_id"),
    "list size": (pb.ListSchedulesRequest(page_size=101), "page_size"),
    "list token": (pb.ListSchedulesRequest(page_token="a b"), "page_token"),
    "list queue": (pb.ListSchedulesRequest(queue="a.b"), "queue"),
    "preview nothing": (pb.PreviewScheduleRequest(), "target"),
    "preview count": (pb.PreviewScheduleRequest(name="a", count=101), "count"),
    "preview name": (pb.PreviewScheduleRequest(name="a b"), "name"),
    "preview line": (pb.PreviewScheduleRequest(schedule=pb.Schedule(**cron("0 0 31 4 *"))), "schedule.cron.line"),
    "preview past": (pb.PreviewScheduleRequest(schedule=pb.Schedule(once=Timestamp(seconds=1))), "schedule.once"),
}


@pytest.mark.parametrize(("request_", "place"), BAD_CALLS.values(), ids=BAD_CALLS)
async def test_bad_calls(api: Api, request_: Message, place: str) -> None:
    answer = await refused(getattr(api.admin, request_.DESCRIPTOR.name.removesuffix("Request"))(request_))
    assert (answer.code, answer.place) == (grpc.StatusCode.INVALID_ARGUMENT, place)


@pytest.mark.parametrize(
    "kind",
    [
        pb.GetScheduleRequest,
        pb.DeleteScheduleRequest,
        pb.PauseScheduleRequest,
        pb.ResumeScheduleRequest,
        pb.RunScheduleRequest,
        pb.PreviewScheduleRequest,
    ],
)
async def test_a_name_that_no_schedule_has(api: Api, kind: Callable[..., Message]) -> None:
    request = kind(name="nowhere")
    answer = await refused(getattr(api.admin, request.DESCRIPTOR.name.removesuffix("Request"))(request))
    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "SCHEDULE_NOT_FOUND")
    assert "'nowhere'" in answer.message and "ListSchedules" in answer.message


async def test_a_queue_that_is_not_to_be_created(serve: Serve, eye: Eye) -> None:
    async with serve(create_queues=False) as api:
        answer = await refused(put(api))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
        assert eye.rows()["schedule"] == 0
