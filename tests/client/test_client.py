"""Looking at jobs, waiting for them, errors with fields, and the synchronous functions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import grpc
import pytest

import jobwire
from jobwire import (
    Client,
    DeadlineExceeded,
    FieldViolation,
    InternalError,
    InvalidArgument,
    JobInfo,
    JobState,
    NotFound,
    Unavailable,
    Worker,
)
from jobwire.errors import JobwireError, ResourceExhausted
from jobwire.v1 import job_pb2
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.scripted_server import RefusalError, ScriptedServer


def job(state: job_pb2.JobState.ValueType, revision: str, **fields: object) -> pb.GetJobResponse:
    return pb.GetJobResponse(
        job=job_pb2.Job(id="j-1", queue="q", state=state, revision=revision, **fields)  # type: ignore[arg-type]
    )


class Story:
    """Answers GetJob by one step after the other; the last one stands for ever."""

    def __init__(self, *steps: pb.GetJobResponse | RefusalError) -> None:
        self._steps = list(steps)

    def __call__(self, request: pb.GetJobRequest) -> pb.GetJobResponse:
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, RefusalError):
            raise step
        return step


ACTIVE = job(job_pb2.JOB_STATE_ACTIVE, "1")
HALF = job(job_pb2.JOB_STATE_ACTIVE, "2", progress=job_pb2.Progress(fraction=0.5, note="half"))
FAILED = job(job_pb2.JOB_STATE_FAILED, "3")
GONE = RefusalError(grpc.StatusCode.UNAVAILABLE, "DRAINING", "this server is going away", retry_after=0.01)


async def test_a_job_has_all_its_sides(server: ScriptedServer, client: Client) -> None:
    at = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
    message = job_pb2.Job(
        queue="q",
        id="j-1",
        state=job_pb2.JOB_STATE_COMPLETED,
        data='{"n": 12345678901234567890}',
        headers={"a": "b"},
        options=job_pb2.JobOptions(retry_limit=0, expire_in={"seconds": 900}),  # type: ignore[arg-type]
        attempt=2,
        output="[1, null]",
        errors=[job_pb2.JobError(attempt=1, type="ValueError", message="m", trace="t", worker="w")],
        worker="w",
        revision="r",
    )
    message.create_time.FromDatetime(at)
    message.finish_time.FromDatetime(at)
    server.answer_get_job = lambda request: pb.GetJobResponse(job=message)
    info = await client.get_job("j-1")
    assert (info.state, info.finished) == (JobState.COMPLETED, True)
    assert info.data == {"n": 12345678901234567890}
    assert info.output == [1, None]
    assert (info.options.retry_limit, info.options.expire_in, info.options.retention) == (0, 900.0, None)
    assert (info.created_at, info.started_at, info.finished_at) == (at, None, at)
    assert [(error.attempt, error.type, error.message) for error in info.errors] == [(1, "ValueError", "m")]
    assert info.progress is None


async def test_a_state_that_is_newer_than_the_client_is_no_error(server: ScriptedServer, client: Client) -> None:
    newer = job_pb2.Job(id="j-1")
    newer.state = 99  # type: ignore[assignment]
    server.answer_get_job = lambda request: pb.GetJobResponse(job=newer)
    assert (await client.get_job("j-1")).state is JobState.UNSPECIFIED


async def test_waiting_goes_on_through_a_restart(server: ScriptedServer, client: Client) -> None:
    server.answer_get_job = Story(ACTIVE, GONE, ACTIVE, GONE, FAILED)
    done = await client.wait("j-1", "q")
    assert done.state == "failed"
    first, *later = [call for call in server.calls if isinstance(call, pb.GetJobRequest)]
    assert first.wait.seconds == 0
    assert all((call.wait.seconds, call.known_revision, call.until_finished) == (30, "1", True) for call in later)


async def test_waiting_shows_each_change_once(server: ScriptedServer, client: Client) -> None:
    server.answer_get_job = Story(ACTIVE, HALF, GONE, HALF, FAILED)
    seen: list[JobInfo] = []
    await client.wait("j-1", "q", on_change=seen.append)
    assert [(info.state, info.progress.note if info.progress else None) for info in seen] == [
        ("active", None),
        ("active", "half"),
        ("failed", None),
    ]
    assert not any(call.until_finished for call in server.calls if isinstance(call, pb.GetJobRequest))


async def test_waiting_ends_with_the_timeout_and_says_what_was_seen(server: ScriptedServer, client: Client) -> None:
    hanging = asyncio.Event()

    async def answer(request: pb.GetJobRequest) -> pb.GetJobResponse:
        if request.wait.seconds:
            await hanging.wait()
        return ACTIVE

    server.answer_get_job = answer
    with pytest.raises(TimeoutError, match=r"within 0\.1 s, it was active when last seen"):
        await client.wait("j-1", timeout=0.1)
    hanging.set()
    server.answer_get_job = Story(GONE)
    with pytest.raises(DeadlineExceeded, match="never seen; the last attempt failed: this server is going away"):
        await client.wait("j-1", timeout=0.1)


async def test_waiting_for_a_job_that_is_not_there(server: ScriptedServer, client: Client) -> None:
    server.answer_get_job = Story(RefusalError(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND", "no job j-1"))
    with pytest.raises(NotFound, match="no job j-1"):
        await client.wait("j-1")


async def test_an_error_carries_the_servers_details(server: ScriptedServer, client: Client) -> None:
    server.answer_get_job = Story(
        RefusalError(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS", "too many", retry_after=60.5, field="queues"
        )
    )
    async with Client(server.address, timeout=0.5) as hasty:
        with pytest.raises(ResourceExhausted, match=r"^too many$") as caught:
            await hasty.get_job("j-1")
    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS")
    assert error.retry_after == 60.5
    assert error.field_violations == (FieldViolation("queues", "too many"),)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (grpc.StatusCode.INTERNAL, InternalError, "boom .*from 127.0.0.1"),
        (grpc.StatusCode.UNIMPLEMENTED, jobwire.Unimplemented, "is it Jobwire"),
        (grpc.StatusCode.PERMISSION_DENIED, jobwire.PermissionDenied, "boom"),
        (grpc.StatusCode.DATA_LOSS, JobwireError, "boom"),
    ],
)
async def test_an_error_without_details_still_says_where(
    server: ScriptedServer, client: Client, code: grpc.StatusCode, kind: type[JobwireError], text: str
) -> None:
    server.answer_get_job = Story(RefusalError(code, text="boom"))
    with pytest.raises(kind, match=text) as caught:
        await client.get_job("j-1")
    assert type(caught.value) is kind
    assert caught.value.code is code


async def test_the_synchronous_functions(server: ScriptedServer) -> None:
    published = await asyncio.to_thread(jobwire.publish, server.address, "q", {"n": 1}, priority=3)
    assert published.created
    (spec,) = server.publishes[0].jobs
    assert (spec.id, spec.data, spec.priority) == (published.job_id, '{"n":1}', 3)
    server.answer_get_job = Story(GONE, FAILED)
    assert (await asyncio.to_thread(jobwire.get_job, server.address, "j-1", "q")).state == "failed"
    server.answer_get_job = Story(RefusalError(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND", "no job j-1"))
    with pytest.raises(NotFound, match="no job j-1"):
        await asyncio.to_thread(jobwire.sync.get_job, server.address, "j-1")
    with pytest.raises(InvalidArgument, match="turn it into"):
        jobwire.publish(server.address, "q", object())
    await server.stop()
    with pytest.raises(jobwire.Unavailable, match=f"cannot reach Jobwire at {server.address}"):
        await asyncio.to_thread(jobwire.publish, server.address, "q", 1, timeout=0.3)


async def test_an_attempt_without_time_does_not_hide_what_the_others_met(server: ScriptedServer) -> None:
    answers = iter([GONE])

    async def refused_and_then_silent(request: pb.GetJobRequest) -> pb.GetJobResponse:
        for refusal in answers:
            raise refusal
        await asyncio.sleep(60)
        return ACTIVE

    server.answer_get_job = refused_and_then_silent
    async with Client(server.address, timeout=1.5) as client:
        with pytest.raises(Unavailable) as failed:
            await client.get_job("j-1")
    assert failed.value.reason == "DRAINING" and len(server.calls) == 2
    async with Client(server.address, timeout=0.5) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get_job("j-1")


@pytest.mark.parametrize("target", ["", "http://127.0.0.1:8080", "HTTPS://jobwire.example:443"])
async def test_what_can_be_no_address_is_refused_at_once(target: str) -> None:
    async with Client(target) as client:
        with pytest.raises(InvalidArgument, match="target: host and port, such as"):
            await client.get_job("j-1")
    worker = Worker(target)
    worker.handler("q", run_in="thread")(lambda _: None)
    with pytest.raises(InvalidArgument, match="target: host and port, such as"):
        await worker.run()
