"""Publishing from threads: together but without shared fate, as from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import pytest

from jobwire import DeadlineExceeded, InvalidArgument, NewJob, NotFound, Unavailable
from jobwire.sync import Client
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.scripted_server import CUT, PATIENCE, RefusalError, ScriptedServer, all_stored

BAD = RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "jobs[0].priority: too high", field="jobs[0]")

Threads = Callable[[Callable[[], Any]], "asyncio.Future[Any]"]


@pytest.fixture
def threads() -> Iterator[Threads]:
    """Starts a function in a thread of its own, as far as forty go."""
    with ThreadPoolExecutor(40) as pool:
        loop = asyncio.get_running_loop
        yield lambda function: loop().run_in_executor(pool, function)


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[Client]:
    client = Client(server.address, timeout=PATIENCE)
    yield client
    await asyncio.to_thread(client.close)


async def gathered(client: Client, count: int) -> None:
    """Until so many jobs wait in the lane of queue `q` for the next call."""
    async with asyncio.timeout(PATIENCE):
        while len(client._lanes._lanes["q"]._grouping._waiting) < count:
            await asyncio.sleep(0.005)


class FirstHangs:
    """Answers the first Publish of queue `q` only when the test says so; the others as `then` does."""

    def __init__(self, then: Callable[[pb.PublishRequest], pb.PublishResponse] = all_stored) -> None:
        self.first: asyncio.Future[RefusalError | None] = asyncio.get_running_loop().create_future()
        self._then = then
        self._calls = 0

    async def __call__(self, request: pb.PublishRequest) -> pb.PublishResponse:
        self._calls += request.queue == "q"
        if self._calls == 1 and request.queue == "q" and (refusal := await self.first):
            raise refusal
        return self._then(request)


async def test_what_threads_publish_during_a_call_goes_out_in_the_next(
    server: ScriptedServer, client: Client, threads: Threads
) -> None:
    server.answer_publish = hanging = FirstHangs()
    first = threads(partial(client.publish, "q", 0))
    await server.arrived(pb.PublishRequest, 1)
    others = [threads(partial(client.publish, "q", number)) for number in range(1, 30)]
    elsewhere = await asyncio.to_thread(client.publish, "another", "not held up")
    assert elsewhere.created
    await gathered(client, 29)
    hanging.first.set_result(None)
    results = await asyncio.gather(first, *others)
    calls = [call for call in server.publishes if call.queue == "q"]
    assert [len(call.jobs) for call in calls] == [1, 29]
    ids = {spec.data: spec.id for call in calls for spec in call.jobs}
    assert [result.job_id for result in results] == [ids[str(number)] for number in range(30)]


@pytest.mark.parametrize("bad", [{1}, {17}, {3, 4, 29}, set(range(1, 30))], ids=str)
async def test_a_bad_job_harms_no_other(
    server: ScriptedServer, client: Client, threads: Threads, bad: set[int]
) -> None:
    stored: list[int] = []

    def answer(request: pb.PublishRequest) -> pb.PublishResponse:
        numbers = [int(spec.data) for spec in request.jobs]
        if bad & set(numbers):
            raise BAD
        stored.extend(numbers)
        return all_stored(request)

    server.answer_publish = hanging = FirstHangs(answer)
    tasks = [threads(partial(client.publish, "q", 0))]
    await server.arrived(pb.PublishRequest, 1)
    tasks += [threads(partial(client.publish, "q", number)) for number in range(1, 30)]
    await gathered(client, 29)
    hanging.first.set_result(None)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(stored) == sorted(set(range(30)) - bad), "each once"
    assert {number for number, result in enumerate(results) if isinstance(result, InvalidArgument)} == bad


async def test_a_failed_call_is_repeated_with_the_same_ids(server: ScriptedServer, client: Client) -> None:
    refusals = [CUT, RefusalError(grpc.StatusCode.ABORTED, "LOCK_TIMEOUT", retry_after=0.01)]

    def answer(request: pb.PublishRequest) -> pb.PublishResponse:
        if refusals:
            raise refusals.pop()
        return all_stored(request)

    server.answer_publish = answer
    published = await asyncio.to_thread(client.publish, "q", 1)
    assert [spec.id for call in server.publishes for spec in call.jobs] == [published.job_id] * 3
    # And the lane is idle again.
    assert (await asyncio.to_thread(client.publish, "q", 2)).created


async def test_an_answer_that_makes_no_sense_leaves_nobody_waiting(server: ScriptedServer, client: Client) -> None:
    server.answer_publish = lambda _: pb.PublishResponse()
    with pytest.raises(ValueError, match="zip"):
        await asyncio.to_thread(client.publish, "q", 1)
    server.answer_publish = all_stored
    assert (await asyncio.to_thread(client.publish, "q", 2)).created


async def never(_: pb.PublishRequest) -> pb.PublishResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def test_no_answer_within_the_timeout(server: ScriptedServer) -> None:
    server.answer_publish = never
    client = Client(server.address, timeout=0.2)
    with pytest.raises(DeadlineExceeded, match="same id is safe"):
        await asyncio.to_thread(client.publish, "q", 1)
    await asyncio.to_thread(client.close)


async def test_nobody_there_names_the_address_and_what_to_look_at(server: ScriptedServer) -> None:
    await server.stop()
    client = Client(server.address, timeout=0.5)
    with pytest.raises(Unavailable, match=f"cannot reach Jobwire at {server.address}.*is it running"):
        await asyncio.to_thread(client.publish, "q", 1)
    await asyncio.to_thread(client.close)


async def test_a_client_that_closes_lets_publishes_arrive(
    server: ScriptedServer, client: Client, threads: Threads
) -> None:
    server.answer_publish = hanging = FirstHangs()
    publishing = [threads(partial(client.publish, "q", 0))]
    await server.arrived(pb.PublishRequest, 1)
    publishing += [threads(partial(client.publish, "q", 1)) for _ in range(5)]
    await gathered(client, 5)
    closing = threads(client.close)
    hanging.first.set_result(None)
    assert all(published.created for published in await asyncio.gather(*publishing))
    await closing
    with pytest.raises(RuntimeError, match="closed"):
        client.publish("q", 2)


async def test_many_jobs_and_a_look_at_one(server: ScriptedServer, client: Client) -> None:
    seen: list[tuple[int, int]] = []

    def progress(stored: int, of: int) -> None:
        seen.append((stored, of))

    published = await asyncio.to_thread(
        client.publish_many, "q", [NewJob(number) for number in range(2500)], on_progress=progress
    )
    assert [len(call.jobs) for call in server.publishes] == [1000, 1000, 500]
    assert seen == [(1000, 2500), (2000, 2500), (2500, 2500)]
    assert [result.job_id for result in published] == [spec.id for call in server.publishes for spec in call.jobs]
    assert (await asyncio.to_thread(client.get_job, published[0].job_id, "q")).finished

    def unknown(_: pb.GetJobRequest) -> pb.GetJobResponse:
        raise RefusalError(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND", "no such job")

    server.answer_get_job = unknown
    with pytest.raises(NotFound, match="no such job"):
        await asyncio.to_thread(client.get_job, published[0].job_id, "q")
