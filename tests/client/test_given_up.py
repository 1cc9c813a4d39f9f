"""Calls that a server gives up as it stops: gRPC ends them with CANCELLED, and they are repeated like any other loss.

What the caller cancels himself is another matter, and stays over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

import jobwire.sync
from jobwire import Client, Job, NewJob, Unavailable
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.conftest import Working
from tests.client.scripted_server import (
    PATIENCE,
    RefusalError,
    ScriptedServer,
    all_applied,
    all_stored,
    delivery,
    finished_job,
)

DROPPED = RefusalError(grpc.StatusCode.CANCELLED, text="CANCELLED")
"""What a client sees of a call that gRPC drops."""


class Dropping:
    """Drops the first calls, then answers."""

    def __init__(self, answer: Callable[[Any], Any], times: int = 2) -> None:
        self._answer = answer
        self._left = times

    def __call__(self, request: Any) -> Any:
        if self._left:
            self._left -= 1
            raise DROPPED
        return self._answer(request)


@pytest.fixture
async def threads_client(server: ScriptedServer) -> AsyncIterator[jobwire.sync.Client]:
    client = jobwire.sync.Client(server.address, timeout=PATIENCE)
    yield client
    await asyncio.to_thread(client.close)


async def test_what_reaches_a_server_as_it_stops_reaches_the_next_one(server: ScriptedServer) -> None:
    async with Client(server.address, timeout=PATIENCE) as client:
        await client.get_job("j-1", "q")
        for _ in range(5):
            # gRPC takes one call at a time from those that have come, and drops the others when it stops.
            looks = [asyncio.create_task(client.get_job("j-1", "q")) for _ in range(50)]
            await asyncio.sleep(0.01)
            await server.stop()
            await server.start()
            assert all(job.finished for job in await asyncio.gather(*looks))


async def test_calls_are_repeated(server: ScriptedServer, client: Client) -> None:
    server.answer_publish = Dropping(all_stored)
    published = await client.publish("q", 1)
    assert [spec.id for call in server.publishes for spec in call.jobs] == [published.job_id] * 3
    server.answer_publish = Dropping(all_stored)
    jobs = [NewJob(2), NewJob(3)]
    assert [stored.job_id for stored in await client.publish_many("q", jobs)] == [job.id for job in jobs]
    server.answer_get_job = Dropping(finished_job)
    assert (await client.get_job("j-1", "q")).finished
    server.answer_get_job = Dropping(finished_job)
    assert (await client.wait("j-1", "q")).finished


async def test_calls_from_threads_are_repeated(server: ScriptedServer, threads_client: jobwire.sync.Client) -> None:
    server.answer_publish = Dropping(all_stored)
    published = await asyncio.to_thread(threads_client.publish, "q", 1)
    assert [spec.id for call in server.publishes for spec in call.jobs] == [published.job_id] * 3
    server.answer_publish = Dropping(all_stored)
    assert len(await asyncio.to_thread(threads_client.publish_many, "q", [NewJob(2)])) == 1
    server.answer_get_job = Dropping(finished_job)
    assert (await asyncio.to_thread(threads_client.get_job, "j-1", "q")).finished


async def test_a_worker_goes_on(server: ScriptedServer, working: Working) -> None:
    async def at_once(job: Job) -> object:
        return job.data

    async with working(at_once):
        (await server.stream()).end(DROPPED)
        stream = await server.opened()
        server.answer_ack = Dropping(all_applied)
        await stream.deliver(delivery("h-1", "7"))
        await server.ack(lambda ack: sum(bool(said.items) for said in server.acks) == 3)
        stream.end(DROPPED)
        again = await server.opened()
        assert again.request.resume.session_id == "s-1"
        assert {ack.items[0].complete.output for ack in server.acks if ack.items} == {"7"}


async def test_the_time_of_a_call_bounds_its_repetitions(server: ScriptedServer) -> None:
    server.answer_publish = server.answer_get_job = Dropping(all_stored, times=10**9)
    async with Client(server.address, timeout=0.5) as client:
        for call in (client.publish("q", 1), client.publish_many("q", [NewJob(1)]), client.get_job("j-1", "q")):
            with pytest.raises(Unavailable, match=f"{server.address} was ended .*repeating it is safe") as caught:
                await call
            assert caught.value.code is grpc.StatusCode.CANCELLED


async def never(_: Any) -> Any:
    await asyncio.Event().wait()


async def test_what_the_caller_cancels_is_not_repeated(server: ScriptedServer) -> None:
    server.answer_get_job = never
    async with Client(server.address, timeout=PATIENCE) as client:
        looks = [asyncio.create_task(client.get_job("j-1", "q")) for _ in range(2)]
        await server.arrived(pb.GetJobRequest, 2)
        looks[0].cancel()
        await asyncio.wait([looks[0]])
        assert looks[0].cancelled()
    # The other one by closing the client.
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait([looks[1]])
    assert looks[1].cancelled()
    assert len(server.calls) == 2


async def test_a_client_closed_by_another_thread_repeats_nothing(
    server: ScriptedServer, threads_client: jobwire.sync.Client
) -> None:
    server.answer_get_job = never
    look = asyncio.create_task(asyncio.to_thread(threads_client.get_job, "j-1", "q"))
    await server.arrived(pb.GetJobRequest, 1)
    await asyncio.to_thread(threads_client.close)
    with pytest.raises(Unavailable, match="closed") as caught:
        await look
    assert caught.value.code is grpc.StatusCode.CANCELLED
    assert len(server.calls) == 1
