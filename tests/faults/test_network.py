"""The network between client and server goes wrong: nothing acknowledged is lost, and one lease is valid at a time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import pytest

from jobwire import Client, Job, Worker
from jobwire.v1.admin_service_pb2 import ListQueuesRequest
from jobwire.v1.queue_service_pb2 import (
    ACK_STATUS_ALREADY_APPLIED,
    ACK_STATUS_APPLIED,
    ACK_STATUS_LEASE_LOST,
    AckItem,
    AckRequest,
    Complete,
    Fail,
    JobSpec,
    PublishRequest,
    Release,
)
from tests.api.conftest import Api, Serve, serving
from tests.api.refusals import read
from tests.api.worker import Worker as RawWorker
from tests.api.worker import publish
from tests.chaos.proxy import Direction, Proxy
from tests.conftest import Postgres

from . import support_net
from .support_net import COMPLETED, Books, End, Wire, done, duration, resumed, until, wired, worker_of

books = support_net.books

FINE = End(COMPLETED, 1, 0, 0)


@pytest.fixture
def serve(postgres: Postgres, schema: str) -> Serve:
    return partial(serving, postgres.dsn, schema)


@dataclass(frozen=True, slots=True)
class Net:
    """One server, reached directly and through a proxy."""

    api: Api
    proxy: Proxy
    wire: Wire

    async def back(self) -> None:
        """Returns when the client's connection stands again."""

        async def answers() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self.wire.admin.ListQueues(ListQueuesRequest(), timeout=5)
                return True
            return False

        self.proxy.heal()
        await until(answers)

    async def detached(self) -> None:
        """Returns when no stream is left at the server."""
        broker = self.api.server._broker
        await until(lambda: broker.stats().streams == 0)


@asynccontextmanager
async def through_proxy(api: Api) -> AsyncIterator[Net]:
    host, port = api.server.address.split(":")
    async with Proxy(host, int(port)) as proxy, wired(proxy.address) as wire:
        yield Net(api, proxy, wire)


@pytest.fixture
async def net(serve: Serve) -> AsyncIterator[Net]:
    async with serve() as api, through_proxy(api) as net:
        yield net


async def test_a_cut_between_claim_and_delivery(net: Net, books: Books) -> None:
    """What never arrived is delivered again, and counts as nothing."""
    async with worker_of(net.wire) as lost:
        net.proxy.freeze("down")
        [job_id] = await publish(net.api)
        await until(lambda: books.count("claim") == 1)
        await asyncio.sleep(0.2)  # on its way
        net.proxy.cut()
        await lost.until(lambda: lost.ended)
        await net.back()
        assert not lost.deliveries
        async with resumed(net.wire, lost, 2, []) as worker:
            [delivery] = await worker.receive(1)
            assert (delivery.job_id, delivery.attempt, delivery.retry_count) == (job_id, 2, 0)
            assert books.one_lease_each()
            assert await worker.complete(delivery) == [ACK_STATUS_APPLIED]
    assert books.ends() == {job_id: End(COMPLETED, 2, 0, 0)}


@pytest.mark.parametrize(
    "outcome",
    [
        {"complete": Complete(output='"once"')},
        {"fail": Fail(type="Oops", permanent=True)},
        {"fail": Fail(type="Oops", retry_in=duration(0))},
        {"release": Release(delay=duration(0))},
    ],
    ids=["complete", "fail for good", "fail", "release"],
)
async def test_a_cut_between_an_ack_and_its_answer(net: Net, books: Books, outcome: dict[str, Any]) -> None:
    async with worker_of(net.wire, grace=0.0) as worker:
        [job_id] = await publish(net.api, options={"retry_limit": 1})
        [delivery] = await worker.receive(1)
        net.proxy.freeze("down")
        item = AckItem(handle=delivery.handle, **outcome)
        acking = asyncio.ensure_future(worker.report(item))
        await until(lambda: books.count("archive") or books.rows("SELECT 1 FROM {}.live_job WHERE attempt > 1"))
        net.proxy.cut()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await acking
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await net.back()
        # Repeated over another connection, without a stream: the lease decides.
        repeated = await net.wire.queue.Ack(AckRequest(items=[item, item]))
        assert [result.status for result in repeated.results] == [ACK_STATUS_ALREADY_APPLIED] * 2
    if not books.count("archive"):
        async with worker_of(net.api) as again:
            [second] = await again.receive(1)
            # It may have been on its way to the stream that was cut.
            assert second.job_id == job_id and second.attempt in (2, 3)
            assert second.retry_count == (1 if "fail" in outcome else 0)
            stale = await net.api.queue.Ack(AckRequest(items=done(delivery.handle)))
            assert stale.results[0].status in (ACK_STATUS_ALREADY_APPLIED, ACK_STATUS_LEASE_LOST)
            assert await again.complete(second) == [ACK_STATUS_APPLIED]
    assert len(books.ends()) == 1


async def test_a_cut_between_publish_and_its_answer(net: Net, books: Books) -> None:
    await publish(net.wire)
    request = PublishRequest(
        queue="work", jobs=[JobSpec(id=f"0190d7f0-0000-7000-8000-{n:012}", data=str(n)) for n in range(3)]
    )
    net.proxy.freeze("down")
    publishing = asyncio.ensure_future(net.wire.queue.Publish(request))
    await until(lambda: books.count("live_job") == 4)
    net.proxy.cut()
    with pytest.raises(grpc.aio.AioRpcError):
        await publishing
    await net.back()
    again = await net.wire.queue.Publish(request)
    assert [(result.created, result.data_differs) for result in again.results] == [(False, False)] * 3
    assert books.count("live_job") == 4


async def test_a_resume_while_the_old_stream_still_looks_alive(net: Net, books: Books) -> None:
    """The old connection is forgotten on the way: neither end is told, and the client comes by another."""
    async with worker_of(net.wire, max_in_flight=2) as old:
        await publish(net.api, 2)
        first, second = await old.receive(2)
        net.proxy.forget()
        async with resumed(net.api, old, 2, [first.handle], max_in_flight=2) as now:
            assert now.opened.resumed and not now.opened.lost
            # What it did not name never arrived: it comes again, and its old handle is worth nothing.
            [again] = await now.receive(1)
            assert (again.job_id, again.attempt) == (second.job_id, 2)
            assert books.one_lease_each()
            assert await now.complete(second, first, again) == [
                ACK_STATUS_LEASE_LOST,
                ACK_STATUS_APPLIED,
                ACK_STATUS_APPLIED,
            ]
        net.proxy.heal()
        await old.until(lambda: old.ended)
    assert books.ends() == {first.job_id: FINE, second.job_id: End(COMPLETED, 2, 0, 0)}


@pytest.mark.parametrize("told", ["up", "down"])
async def test_a_half_open_connection(net: Net, books: Books, told: Direction) -> None:
    """Up: the client is told, and resumes while its old stream looks alive. Down: it comes back when it has noticed."""
    async with worker_of(net.wire) as old:
        await publish(net.api)
        [delivery] = await old.receive(1)
        net.proxy.half_open(told)
        if told == "down":
            await net.detached()
            assert not old.ended
        else:
            await old.until(lambda: old.ended)
        async with resumed(net.api, old, 2, [delivery.handle]) as now:
            assert now.opened.resumed and not now.opened.lost
            assert await now.complete(delivery) == [ACK_STATUS_APPLIED]
            await publish(net.api)
            await now.receive(1)
            assert await now.complete(*now.deliveries) == [ACK_STATUS_APPLIED]
        net.proxy.heal()
    assert set(books.ends().values()) == {FINE}


async def answered(rival: RawWorker) -> None:
    await rival.until(lambda: rival.messages or rival.ended)


async def one_ended(rivals: list[RawWorker]) -> None:
    await until(lambda: any(rival.ended for rival in rivals))


@pytest.mark.parametrize("replicas", [1, 2])
async def test_two_resumes_at_once(serve: Serve, books: Books, replicas: int) -> None:
    """Of one session, at one replica and at two: the higher epoch wins, whichever comes first; the other is told."""
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(serve())
        other = await stack.enter_async_context(serve()) if replicas == 2 else one
        worker = await stack.enter_async_context(worker_of(one))
        await publish(one)
        [delivery] = await worker.receive(1)
        for epoch in range(2, 22, 2):
            calls = [(one, epoch), (other, epoch + 1)]
            random.shuffle(calls)
            rivals = [resumed(api, worker, number, [delivery.handle]) for api, number in calls]
            for rival in rivals:
                await answered(rival)
            await one_ended(rivals)
            [loser] = [rival for rival in rivals if rival.ended]
            [winner] = [rival for rival in rivals if not rival.ended]
            assert winner.opened.epoch == epoch + 1 and not winner.opened.lost
            assert loser.error is not None and read(loser.error).reason == "SESSION_TAKEN_OVER"
            stack.push_async_callback(winner.__aexit__)
        assert await winner.complete(delivery) == [ACK_STATUS_APPLIED]
    assert set(books.ends().values()) == {FINE}


async def test_two_resumes_of_one_epoch(serve: Serve, books: Books) -> None:
    async with serve() as one, serve() as other, worker_of(one) as worker:
        await publish(one)
        [delivery] = await worker.receive(1)
        rivals = [resumed(api, worker, 2, [delivery.handle]) for api in (one, other)]
        for rival in rivals:
            await answered(rival)
        [winner] = [rival for rival in rivals if rival.messages]
        [loser] = [rival for rival in rivals if not rival.messages]
        assert loser.error is not None and read(loser.error).reason == "SESSION_TAKEN_OVER"
        assert await winner.complete(delivery) == [ACK_STATUS_APPLIED]
        await winner.__aexit__()
    assert set(books.ends().values()) == {FINE}


# The client as people use it.


class Desk:
    """A handler that notes what it starts and finishes; the answer to a job is its payload."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.starts: Counter[str] = Counter()
        self.dones: Counter[str] = Counter()

    async def __call__(self, job: Job) -> Any:
        self.starts[job.id] += 1
        await asyncio.sleep(self.seconds)
        self.dones[job.id] += 1
        return job.data


@asynccontextmanager
async def working(address: str, desk: Desk, *, concurrency: int = 5, **terms: float) -> AsyncIterator[Worker]:
    worker = Worker(address, stop_grace=1.0, **{"heartbeat_interval": 1.0, "resume_grace": 3.0, **terms})
    worker.handler("work", concurrency=concurrency)(desk)
    async with worker:
        yield worker


async def publish_all(client: Client, count: int) -> list[str]:
    published = await asyncio.gather(*(client.publish("work", {"n": n}) for n in range(count)))
    return [one.job_id for one in published]


@pytest.mark.parametrize("direction", ["up", "down", None])
async def test_a_short_freeze_disturbs_no_running_job(net: Net, books: Books, direction: Direction | None) -> None:
    desk = Desk(seconds=2.5)
    async with working(net.proxy.address, desk), Client(net.api.server.address) as client:
        ids = await publish_all(client, 5)
        await until(lambda: len(desk.starts) == 5)
        net.proxy.freeze(direction)
        await asyncio.sleep(1.2)
        net.proxy.thaw()
        ends = await books.finished(5)
    assert ends == dict.fromkeys(ids, FINE)
    assert set(desk.starts.values()) == {1}


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_long_freeze_in_one_direction_costs_no_job(net: Net, books: Books, direction: Direction) -> None:
    """For longer than any grace: what ran is given up on both sides, and runs again when the network is back."""
    desk, rescue = Desk(seconds=30.0), Desk()
    async with working(net.proxy.address, desk), Client(net.api.server.address) as client:
        ids = await publish_all(client, 5)
        await until(lambda: len(desk.starts) == 5)
        await asyncio.sleep(1.5)
        net.proxy.freeze(direction)
        desk.seconds = 0.0
        async with working(net.api.server.address, rescue):
            ends = await books.finished(5)
        net.proxy.thaw()
        [after] = await publish_all(client, 1)
        await until(lambda: desk.dones[after] == 1)
        await books.finished(6)
    assert ends.keys() == set(ids) and set(rescue.dones) <= set(ids)
    assert {(end.state, end.retries) for end in ends.values()} == {(COMPLETED, 0)}
    assert not any(desk.dones[job] for job in ids), "the handlers that nobody could hear of were told to stop"


async def test_a_cut_and_a_refusal_disturb_no_running_job(net: Net, books: Books) -> None:
    desk = Desk(seconds=3.0)
    async with working(net.proxy.address, desk, resume_grace=15.0), Client(net.api.server.address) as client:
        ids = await publish_all(client, 5)
        await until(lambda: len(desk.starts) == 5)
        net.proxy.refuse()
        net.proxy.cut()
        await net.detached()
        await asyncio.sleep(1.0)
        net.proxy.heal()
        ends = await books.finished(5)
    assert ends == dict.fromkeys(ids, FINE)
    assert set(desk.starts.values()) == {1}


@pytest.mark.parametrize("way", ["late", "a byte at a time"])
async def test_a_slow_network_is_slow_and_nothing_else(net: Net, books: Books, way: str) -> None:
    if way == "late":
        net.proxy.delay(0.15, jitter=0.1)
    else:
        net.proxy.trickle(50_000)
    desk = Desk()
    async with working(net.proxy.address, desk, resume_grace=15.0), Client(net.proxy.address, timeout=60) as client:
        ids = await publish_all(client, 8)
        ends = await books.finished(8)
        jobs = await asyncio.gather(*(client.get_job(job_id, queue="work") for job_id in ids))
    assert ends == dict.fromkeys(ids, FINE)
    assert [job.output for job in jobs] == [{"n": n} for n in range(8)]
    assert set(desk.starts.values()) == {1}


@pytest.mark.parametrize("seed", range(2))
async def test_a_network_in_which_everything_goes_wrong(net: Net, books: Books, seed: int) -> None:
    """Whatever is answered counts, once, and all is done when it is over."""
    chance, desk = random.Random(seed), Desk(seconds=0.05)
    published: list[str] = []

    async def publishing(client: Client) -> None:
        for n in range(150):
            published.append((await client.publish("work", {"n": n})).job_id)  # noqa: PERF401 (one after the other)

    def misfortune() -> None:
        proxy = net.proxy
        what: list[Callable[[], object]] = [
            proxy.cut,
            proxy.forget,
            proxy.refuse,
            lambda: proxy.half_open(chance.choice(["up", "down"])),
            lambda: proxy.freeze(chance.choice(["up", "down", None])),
            lambda: proxy.delay(0.05, jitter=0.1),
            lambda: proxy.trickle(20_000),
            lambda: proxy.cut_on(chance.choice(["up", "down"]), after=chance.randrange(3_000)),
        ]
        chance.choice(what)()

    async with (
        working(net.proxy.address, desk),
        working(net.proxy.address, desk),
        Client(net.proxy.address, timeout=60) as client,
    ):
        producing = asyncio.create_task(publishing(client))
        for _ in range(20):
            misfortune()
            await asyncio.sleep(chance.uniform(0, 0.5))
            net.proxy.heal()
            await asyncio.sleep(chance.uniform(0, 0.1))
            assert books.one_lease_each()
        await producing
        ends = await books.finished(150)
    assert ends.keys() == set(published) and len(published) == 150
    assert {(end.state, end.retries) for end in ends.values()} == {(COMPLETED, 0)}
    assert all(desk.dones[job] for job in published)
    assert books.count("live_job") == books.count("ready") == 0
