"""Loads that are not nice: readers that do not read, workers that never answer, jobs that kill, all at the limits."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from jobwire.v1.admin_service_pb2 import CreateQueueRequest, Queue
from jobwire.v1.queue_service_pb2 import (
    ACK_STATUS_APPLIED,
    ACK_STATUS_LEASE_LOST,
    CANCEL_REASON_EXPIRED,
    AckItem,
    AckRequest,
    Complete,
    GetJobRequest,
    JobSpec,
    PublishRequest,
    SubscribeRequest,
)
from tests.api.conftest import Api, Serve, serving
from tests.api.worker import Worker, publish
from tests.chaos.proxy import Proxy
from tests.conftest import LONG, Postgres
from tests.system.conftest import ServerProcess, WorkerProcess

from . import support_net
from .support_net import COMPLETED, FAILED, Books, End, Line, Misbehaving, done, duration, until, wired, worker_of

server, misbehaving = support_net.server, support_net.misbehaving
books, line = support_net.books, support_net.line

FINE = End(COMPLETED, 1, 0, 0)
LARGE = 512 * 1024
MESSAGE = 1024 * 1024


@pytest.fixture
def serve(postgres: Postgres, schema: str) -> Serve:
    return partial(serving, postgres.dsn, schema)


def text_of(size: int) -> str:
    """JSON text of so many bytes, which no compression makes small."""
    return '"' + os.urandom(size // 2).hex()[: size - 2] + '"'


async def large_payloads(api: Api) -> None:
    """Lets the queue take the largest payloads there are."""
    await api.admin.CreateQueue(CreateQueueRequest(queue=Queue(name="work", max_data_bytes=LARGE)))


async def work_off(worker: Worker) -> None:
    finished = 0
    while True:
        batch = worker.deliveries[finished:]
        if batch:
            assert set(await worker.complete(*batch)) == {ACK_STATUS_APPLIED}
            finished += len(batch)
        await asyncio.sleep(0.01)


@asynccontextmanager
async def working_off(worker: Worker) -> AsyncIterator[None]:
    """Completes what arrives meanwhile."""
    task = asyncio.create_task(work_off(worker))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_reader_that_never_reads_keeps_nothing_from_its_neighbours(serve: Serve, books: Books) -> None:
    """Its session is lost after three heartbeats, and all of its jobs go to others: it was never heard to have one."""
    async with serve() as api, wired(api.server.address) as wire:
        await large_payloads(api)
        for _ in range(4):
            await publish(api, 5, data=text_of(500_000))
        call = wire.queue.Subscribe(
            SubscribeRequest(
                queues=["work"], max_in_flight=20, heartbeat_interval=duration(1), resume_grace=duration(1)
            )
        )
        assert (await call.read()).opened.session_id
        await until(lambda: books.count("ready") == 0)
        async with worker_of(api, max_in_flight=3) as neighbour, working_off(neighbour):
            ends = await books.finished(20)
        call.cancel()
    assert set(ends.values()) == {End(COMPLETED, 2, 0, 0)}


async def test_a_slow_reader_is_no_lost_one(serve: Serve, books: Books) -> None:
    """Its heartbeats wait behind payloads for longer than three of them; its Acks are signs of life as well."""
    loop = asyncio.get_running_loop()
    async with serve() as api:
        host, port = api.server.address.split(":")
        for _ in range(2):
            await publish(api, 40, data=text_of(60_000))
        async with Proxy(host, int(port)) as proxy, wired(proxy.address) as slow:
            proxy.trickle(600_000, piece=6_000, direction="down")
            began = loop.time()
            async with worker_of(slow, heartbeat=2.0, max_in_flight=100) as reader, working_off(reader):
                ends = await books.finished(80)
                assert loop.time() - began > 6, "longer than three heartbeats"
                proxy.heal()
    assert list(ends.values()) == [FINE] * 80


async def test_a_greedy_reader_gets_its_credits_and_no_more(serve: Serve, books: Books) -> None:
    """It takes as much as it may and settles nothing; what is more than that is its neighbour's, and in the end all."""
    async with (
        serve() as api,
        worker_of(api, heartbeat=10.0, max_in_flight=1_000) as greedy,
        worker_of(api, heartbeat=10.0, max_in_flight=5) as neighbour,
        working_off(neighbour),
    ):
        await publish(api, 1_000)
        await publish(api, 100)
        await until(lambda: books.count("ready") == 0)
        await until(lambda: len(greedy.deliveries) + books.count("archive") == 1_100)
        assert len(greedy.deliveries) <= 1_000
        assert books.count("archive") >= 100
        await greedy.report(close_session=True)
        ends = await books.finished(1_100)
    assert {(end.state, end.retries, end.losses) for end in ends.values()} == {(COMPLETED, 0, 0)}


async def test_a_worker_that_never_acks_costs_its_own_jobs_a_retry_each(serve: Serve, books: Books) -> None:
    async with serve(cancel_grace=0.5) as api, worker_of(api, max_in_flight=7) as silent:
        with_retry = await publish(
            api, 4, options={"retry_limit": 1, "retry_delay": duration(0), "expire_in": duration(1)}
        )
        without = await publish(api, 3, options={"retry_limit": 0, "expire_in": duration(1)})
        await silent.receive(7)
        async with worker_of(api, max_in_flight=2) as neighbour, working_off(neighbour):
            good = await publish(api, 20)
            ends = await books.finished(27)
        told = [event.cancellation for event in silent.events("cancellation")]
        assert {one.job_id for one in told} >= {*with_retry, *without}
        assert CANCEL_REASON_EXPIRED in {one.reason for one in told}
        late = await silent.ack(*done(*(delivery.handle for delivery in silent.deliveries[:7])))
        assert {result.status for result in late} == {ACK_STATUS_LEASE_LOST}
        assert not silent.ended, "it answers heartbeats"
    assert {ends[job] for job in with_retry} == {End(COMPLETED, 2, 1, 0)}
    assert {ends[job] for job in without} == {End(FAILED, 1, 0, 0)}
    assert {(ends[job].state, ends[job].retries) for job in good} == {(COMPLETED, 0)}


@pytest.mark.parametrize("kind", ["die", "drop"])
async def test_a_job_that_kills_its_worker_is_found_among_good_ones(
    server: Callable[..., ServerProcess], misbehaving: Misbehaving, books: Books, kind: str
) -> None:
    """Die: after having been heard of; drop: at once. Dead workers are started again, as platforms do."""
    replica = server(renew_interval=0.5, poll_interval=0.2)
    start = partial(misbehaving, replica.address, concurrency=4, grace=0.5)

    def revive(crew: list[WorkerProcess]) -> bool:
        crew[:] = [one if one.running.poll() is None else start() for one in crew]
        return books.rows("SELECT 1 FROM {}.archive WHERE id = %s", poison) != []

    async with wired(replica.address) as wire:
        before = await publish(wire, 6, data='{"sleep": 0.3}')
        [poison] = await publish(wire, data=f'{{"{kind}": true}}')
        after = await publish(wire, 12, data='{"sleep": 0.3}')
        crew = [start(), start()]
        await until(lambda: revive(crew), 100)
        ends = await books.finished(19)
    found = ends.pop(poison)
    assert (found.state, found.retries, found.losses) == (FAILED, 0, 5)
    assert ends.keys() == {*before, *after}
    assert {(end.state, end.retries) for end in ends.values()} == {(COMPLETED, 0)}
    assert max(end.losses for end in ends.values()) <= 2, "a neighbour may be suspected too, and is then tried alone"


async def test_hundreds_of_subscribers_at_once(serve: Serve, books: Books) -> None:
    count = 1_000 if LONG else 500
    async with serve() as api, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(wired(api.server.address)) for _ in range(5)]
        workers = [worker_of(wires[n % 5], heartbeat=60.0, grace=0.0) for n in range(count)]
        for worker in workers:
            stack.push_async_exit(worker)
        async with asyncio.timeout(100):
            for worker in workers:
                await worker.__aenter__()
            for n in range(0, count, 500):
                await publish(api, min(500, count - n))
            deliveries = [(await worker.receive(1))[0] for worker in workers]
            await asyncio.gather(*(worker.complete(one) for worker, one in zip(workers, deliveries, strict=True)))
        assert {len(worker.deliveries) for worker in workers} == {1}
    assert list(books.ends().values()) == [FINE] * count


async def test_messages_at_the_limits_over_slow_lines(line: Line, schema: str, books: Books) -> None:
    """1,000 jobs in 3 MiB, payloads and outputs of 512 KiB, 1,000 outcomes in an Ack; both lines are slow."""
    async with serving(line.dsn, schema) as api, AsyncExitStack() as stack:
        host, port = api.server.address.split(":")
        proxy = await stack.enter_async_context(Proxy(host, int(port)))
        wire = await stack.enter_async_context(wired(proxy.address))
        await large_payloads(api)
        for slow in (proxy, line.proxy):
            slow.trickle(4_000_000, piece=16_000)
        many, few = [text_of(3_100) for _ in range(1_000)], [text_of(LARGE) for _ in range(5)]
        for texts in (many, few):
            specs = [JobSpec(data=text) for text in texts]
            answer = await wire.queue.Publish(PublishRequest(queue="work", jobs=specs))
            assert all(result.created for result in answer.results)
        worker = await stack.enter_async_context(worker_of(wire, heartbeat=10.0, max_in_flight=1_000))
        async with asyncio.timeout(60):
            while len(worker.deliveries) < 1_000:
                await asyncio.sleep(0.1)
            assert set(await worker.complete(*worker.deliveries)) == {ACK_STATUS_APPLIED}
            while len(worker.deliveries) < 1_005:
                await asyncio.sleep(0.1)
        assert [delivery.data for delivery in worker.deliveries] == many + few
        for event in worker.events("deliveries"):
            assert event.ByteSize() <= MESSAGE or len(event.deliveries.deliveries) == 1
        last, outputs = worker.deliveries[1_000:], [text_of(LARGE) for _ in range(5)]
        items = [
            AckItem(handle=delivery.handle, complete=Complete(output=output))
            for delivery, output in zip(last, outputs, strict=True)
        ]
        answer = await wire.queue.Ack(AckRequest(session_id=worker.session_id, items=items))
        assert [result.status for result in answer.results] == [ACK_STATUS_APPLIED] * 5
        job = (await wire.queue.GetJob(GetJobRequest(queue="work", job_id=last[0].job_id))).job
        assert (job.data, job.output) == (few[0], outputs[0])
    assert list(books.ends().values()) == [FINE] * 1_005
