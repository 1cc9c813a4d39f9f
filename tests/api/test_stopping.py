"""What becomes of calls that come while the server stops: they are answered, or told to come again, never dropped."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from jobwire.v1.queue_service_pb2 import AckRequest, GetJobRequest, JobSpec, PublishRequest
from jobwire_server.api import server as grpc_server

from .conftest import Api, Serve
from .refusals import Refusal, read
from .worker import publish


async def test_calls_that_have_come_are_served(serve: Serve) -> None:
    async with serve() as api:
        [job_id] = await publish(api)
        calls = [
            *(api.queue.Publish(PublishRequest(queue="work", jobs=[JobSpec()])) for _ in range(20)),
            *(api.queue.GetJob(GetJobRequest(queue="work", job_id=job_id)) for _ in range(20)),
            *(api.queue.Ack(AckRequest(session_id=job_id)) for _ in range(20)),
        ]
        for _ in range(3):
            await asyncio.sleep(0)
        # gRPC goes on in threads of its own meanwhile: all arrive, and wait for the event loop to take them.
        time.sleep(1.0)  # noqa: ASYNC251
        await api.server.stop()
        codes = {await call.code() for call in calls}
        assert codes == {grpc.StatusCode.OK}


async def test_calls_that_never_cease_are_refused_at_last(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers that come again at once, until they are told to wait: no moment is without a call."""
    monkeypatch.setattr(grpc_server, "_QUIET_SECONDS", 0.5)
    monkeypatch.setattr(grpc_server, "_REFUSING_SECONDS", 60.0)
    async with serve() as api:
        served = 0

        async def call_until_refused() -> Refusal:
            nonlocal served
            while True:
                try:
                    await api.queue.Ack(AckRequest())
                    served += 1
                except grpc.aio.AioRpcError as error:
                    return read(error)

        callers = [asyncio.create_task(call_until_refused()) for _ in range(20)]
        await until_stopped(api)
        answers = await asyncio.gather(*callers)
    assert served > 0
    assert {(answer.code, answer.reason) for answer in answers} == {(grpc.StatusCode.UNAVAILABLE, "DRAINING")}
    assert all(answer.retry_after for answer in answers)


async def until_stopped(api: Api) -> None:
    async with asyncio.timeout(60):
        await api.server.stop()
