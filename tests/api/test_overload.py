"""More is published than can be held: it is refused with a time to come again, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from jobwire import Client, NewJob, Overloaded
from jobwire.v1.job_pb2 import JOB_STATE_ACTIVE
from jobwire.v1.queue_service_pb2 import (
    ACK_STATUS_APPLIED,
    AckItem,
    Extend,
    GetJobRequest,
    JobSpec,
    PublishRequest,
    PublishResponse,
)
from tests.api.conftest import Api, Eye, Serve
from tests.api.refusals import refused
from tests.api.worker import Worker, publish

PUBLISH = "/jobwire.v1.QueueService/Publish"


@contextmanager
def nearly_full(api: Api) -> Iterator[None]:
    """As if other Publish calls held all that may be held, but for a byte."""
    admission = api.server._broker.admission
    with admission.admit(admission._most - 1, 0):
        yield


async def test_publishes_are_refused_and_nothing_else(serve: Serve, eye: Eye) -> None:
    async with serve(max_publishing_mb=1) as api, Worker(api) as worker:
        [job_id] = await publish(api)
        [delivery] = await worker.receive(1)
        with nearly_full(api):
            for _ in range(2):
                answer = await refused(api.queue.Publish(PublishRequest(queue="work", jobs=[JobSpec()])))
                assert (answer.code, answer.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
                assert answer.retry_after is not None and 0.1 <= answer.retry_after <= 5.0
            [result] = await worker.ack(AckItem(handle=delivery.handle, extend=Extend()))
            assert result.status == ACK_STATUS_APPLIED
            assert (await worker.report()).session_alive
            assert (await api.queue.GetJob(GetJobRequest(job_id=job_id, queue="work"))).job.state == JOB_STATE_ACTIVE
            assert await api.health_of() == "SERVING"
        await publish(api)
        assert eye.rows()["live_job"] == 2


async def test_a_client_says_so_when_its_time_is_over(serve: Serve) -> None:
    async with serve(max_publishing_mb=1) as api, Client(api.server.address, timeout=0.5) as client:
        with nearly_full(api):
            for attempt in (client.publish("work", 1), client.publish_many("work", [NewJob(1)])):
                with pytest.raises(Overloaded, match="nothing of this call was stored") as caught:
                    await attempt
                assert caught.value.reason == "OVERLOADED" and caught.value.retry_after


async def test_while_calls_are_refused_their_messages_are_not_received(serve: Serve) -> None:
    async with serve(max_publishing_mb=1) as api:
        with nearly_full(api):
            await refused(api.queue.Publish(PublishRequest(queue="work", jobs=[JobSpec()])))
            silent = silence(api)
            answer = await refused(silent)
            assert answer.reason == "OVERLOADED"
        # There is room again: the next call is received.
        await publish(api)


async def test_who_sends_slowly_holds_up_nobody(serve: Serve) -> None:
    async with serve() as api:
        silent = [silence(api) for _ in range(20)]
        await publish(api)
        for call in silent:
            call.cancel()
        await asyncio.gather(*silent, return_exceptions=True)
        await publish(api, 3)


async def test_a_call_larger_than_all_that_may_be_held_goes_alone(serve: Serve) -> None:
    async with serve(max_publishing_mb=1) as api:
        await publish(api, 200, data=f'"{"x" * 10_000}"')


async def test_a_client_stores_everything_in_the_end(serve: Serve, eye: Eye) -> None:
    async with serve(max_publishing_mb=1) as api:
        text = "x" * 5_000

        async def produce(queue: str) -> None:
            async with Client(api.server.address, timeout=60) as client:
                for result in await client.publish_many(queue, [NewJob(text) for _ in range(600)]):
                    assert result.job_id

        await asyncio.gather(*(produce(f"work{number % 4}") for number in range(12)))
        assert eye.rows()["live_job"] == eye.rows()["ready"] == 7_200
        assert api.server._broker.admission.held == 0


def silence(api: Api) -> Any:
    """A Publish call whose message never comes."""

    async def never() -> AsyncIterator[PublishRequest]:
        await asyncio.Event().wait()
        yield PublishRequest()

    method = api.channel.stream_unary(
        PUBLISH,
        request_serializer=PublishRequest.SerializeToString,
        response_deserializer=PublishResponse.FromString,
    )
    return method(never())
