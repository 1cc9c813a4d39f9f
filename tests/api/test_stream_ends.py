"""How Subscribe streams end: the client leaves, the server drains; and what the log says of it."""

from __future__ import annotations

import asyncio
import logging

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from structlog.typing import EventDict

from jobwire.v1.admin_service_pb2 import CreateQueueRequest, Queue
from jobwire.v1.queue_service_pb2 import ACK_STATUS_APPLIED, AckRequest, GetJobRequest, SubscribeRequest

from .conftest import Api, Serve, connected
from .http_client import metrics
from .worker import Worker, publish


def subscribe_lines(logged: list[EventDict]) -> list[EventDict]:
    """The lines of Subscribe calls that have ended."""
    return [line for line in logged if line["event"] == "call" and line["rpc"] == "QueueService/Subscribe"]


async def test_a_client_that_leaves_is_no_error(
    serve: Serve, logged: list[EventDict], caplog: pytest.LogCaptureFixture
) -> None:
    """However it leaves: by cancelling, by its channel, or before it was answered."""
    async with serve() as api:
        await publish(api, 5)
        for _ in range(3):
            async with Worker(api):
                pass
        async with Worker(api, max_in_flight=3) as busy:
            await busy.receive(3)
        hasty = [api.queue.Subscribe(SubscribeRequest(queues=["work"])) for _ in range(10)]
        for number, call in enumerate(hasty):
            await asyncio.sleep(0.001 * number)
            call.cancel()
        waiting = api.queue.GetJob(GetJobRequest(job_id=busy.deliveries[0].job_id, wait=Duration(seconds=60)))
        await until_metric(api, "jobwire_waits", 1)
        waiting.cancel()
        await until_metric(api, "jobwire_streams", 0)
        await until_metric(api, "jobwire_waits", 0)
    lines = subscribe_lines(logged)
    assert lines and {line["code"] for line in lines} == {"CANCELLED"}
    assert not [line for line in logged if line["log_level"] not in ("debug", "info")]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_client_that_leaves_while_it_is_written_to_is_no_error(
    serve: Serve, logged: list[EventDict], caplog: pytest.LogCaptureFixture
) -> None:
    """It does not read, so that the server's writes stand still when it goes."""
    async with serve() as api:
        await api.admin.CreateQueue(CreateQueueRequest(queue=Queue(name="large", max_data_bytes=524_288)))
        for _ in range(60):
            await publish(api, queue="large", data='"' + "x" * 500_000 + '"')
        async with connected(api.server) as other:
            greedy = SubscribeRequest(queues=["large"], max_in_flight=30)
            calls = [other.queue.Subscribe(greedy) for _ in range(2)]
            for call in calls:
                assert (await call.read()).HasField("opened")
            # One has all it asked for, the other what came while the first was behind, or as much.
            await until_metric(api, "jobwire_in_flight", 31, 60)
            calls[0].cancel()
        await until_metric(api, "jobwire_streams", 0)
    assert {line["code"] for line in subscribe_lines(logged)} == {"CANCELLED"}
    assert not [line for line in logged if line["log_level"] not in ("debug", "info")]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def until_metric(api: Api, name: str, value: float, most: float | None = None) -> None:
    async with asyncio.timeout(30):
        while not value <= (await metrics(api.server))(name) <= (value if most is None else most):
            await asyncio.sleep(0.01)


async def test_a_drain_ends_the_stream_with_draining_and_ok(serve: Serve, logged: list[EventDict]) -> None:
    async with serve(drain_grace=120.0) as api:
        await publish(api, 2)
        async with Worker(api) as worker:
            await worker.receive(1)
            await api.server.stop()
            await worker.finish()
        last = worker.messages[-1]
        assert last.WhichOneof("event") == "draining" and len(worker.events("draining")) == 1
        assert last.draining.resume_within.ToSeconds() == 120
        assert last.draining.HasField("reconnect_delay")
        assert worker.error is None and await worker.call.code() is grpc.StatusCode.OK
        [line] = subscribe_lines(logged)
        assert (line["code"], line["deliveries"], line["session_id"]) == ("OK", 1, worker.session_id)


async def test_a_session_goes_on_after_the_drain(serve: Serve) -> None:
    async with serve() as api:
        await publish(api, 2)
        async with Worker(api) as worker:
            [held] = await worker.receive(1)
            await api.server.stop()
            await worker.finish()
    async with serve() as api:
        resume = {"session_id": worker.session_id, "epoch": 2, "held": [held.handle]}
        async with Worker(api, resume=resume) as resumed:
            assert resumed.opened.resumed and not resumed.opened.lost
            assert resumed.session_id == worker.session_id
            assert await resumed.complete(held) == [ACK_STATUS_APPLIED]
            [after] = await resumed.receive(1)
            assert after.job_id != held.job_id and after.attempt == 1
            assert (await api.queue.Ack(AckRequest(session_id=worker.session_id))).session_alive
