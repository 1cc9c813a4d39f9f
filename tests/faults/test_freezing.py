"""Processes that stand still for longer than every grace and then go on as if nothing had happened."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest

from jobwire.v1.queue_service_pb2 import ACK_STATUS_APPLIED, ACK_STATUS_LEASE_LOST, GetJobRequest
from tests.api.refusals import read
from tests.api.worker import publish
from tests.chaos.proxy import Proxy
from tests.system.conftest import ServerProcess

from . import support_net
from .support_net import COMPLETED, Books, End, Misbehaving, done, metric, resumed, until, wired, worker_of
from .support_relay import relay

server, misbehaving, books = support_net.server, support_net.misbehaving, support_net.books

Servers = Callable[..., ServerProcess]

QUICK = {"renew_interval": 0.25, "poll_interval": 0.2, "owner_grace": 2, "drain_linger": 0}


@asynccontextmanager
async def nothing_between(address: str) -> AsyncIterator[str]:
    yield address


@asynccontextmanager
async def proxy_between(address: str) -> AsyncIterator[str]:
    host, port = address.split(":")
    async with Proxy(host, int(port)) as proxy:
        yield proxy.address
        assert (proxy.connections, proxy.open) == (1, 1), "the connection held throughout"


@pytest.mark.parametrize(
    ("payload", "between"),
    [
        pytest.param('{"sleep": 6}', nothing_between, id="stopped"),
        pytest.param('{"sleep": 6}', relay, id="stopped behind what answers for it"),
        pytest.param('{"block": 8}', proxy_between, id="its loop is blocked"),
        pytest.param('{"gil": 8}', proxy_between, id="its interpreter is blocked"),
    ],
)
async def test_a_worker_that_stands_still_loses_its_job_and_wakes_up_harmless(
    server: Servers, misbehaving: Misbehaving, books: Books, payload: str, between: Callable[..., object]
) -> None:
    """After three heartbeats, though its connection is open and, where it is not stopped, its pings are answered."""
    replica = server(**QUICK)
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(between(replica.address))
        wire = await stack.enter_async_context(wired(replica.address))
        sleeper = misbehaving(target)
        [job_id] = await publish(wire, data=payload)
        await until(lambda: sleeper.starts(job_id))
        stopped = "sleep" in payload
        if stopped:
            # Its receipt is known by the next heartbeat's answer.
            await asyncio.sleep(2.5)
            sleeper.send(signal.SIGSTOP)
        began = time.monotonic()
        async with worker_of(wire) as rescuer:
            [delivery] = await rescuer.receive(1)
            assert time.monotonic() - began > 2.0, "two heartbeats may go unanswered"
            assert (delivery.job_id, delivery.attempt) == (job_id, 2)
            if stopped:
                sleeper.send(signal.SIGCONT)
            # It wakes up, finds its session gone, and begins anew.
            await until(lambda: sleeper.text().count("opened session") == 2)
            assert "does not count" in sleeper.text() or "its jobs are stopped" in sleeper.text()
            job = (await wire.queue.GetJob(GetJobRequest(queue="work", job_id=job_id))).job
            assert (job.attempt, job.worker) == (2, "tester")
            assert await rescuer.complete(delivery) == [ACK_STATUS_APPLIED]
        # Blocked from the start, its receipt could not be known: then nobody is blamed.
        assert books.ends() == {job_id: End(COMPLETED, 2, 0, losses=1 if stopped else 0)}
        [next_id] = await publish(wire, data="{}")
        assert (await books.finished(2))[next_id] == End(COMPLETED, 1, 0, 0)
        assert len(sleeper.starts(next_id)) == 1


async def test_a_replica_that_stands_still_is_replaced_and_wakes_up_harmless(
    server: Servers, misbehaving: Misbehaving, books: Books
) -> None:
    frozen, other = server(**QUICK), server(**QUICK)
    async with wired(frozen.address) as slow, wired(other.address) as wire:
        working = misbehaving(frozen.address)
        [running] = await publish(wire, data='{"sleep": 60}')
        await until(lambda: working.starts(running))
        async with worker_of(slow) as holder:
            [held] = await publish(wire)
            [stale] = await holder.receive(1)
            frozen.send(signal.SIGSTOP)
            async with worker_of(wire, max_in_flight=3) as rescuer:
                await rescuer.receive(2)
                [new] = await publish(wire)
                deliveries = {delivery.job_id: delivery for delivery in await rescuer.receive(3)}
                assert {job: delivery.attempt for job, delivery in deliveries.items()} == {held: 2, running: 2, new: 1}
                assert await rescuer.complete(deliveries[held]) == [ACK_STATUS_APPLIED]
                frozen.send(signal.SIGCONT)
                await holder.until(lambda: holder.ended)
                assert holder.error is not None and read(holder.error).reason == "SESSION_LOST"
                late = await holder.report(*done(stale.handle))
                assert [result.status for result in late.results] == [ACK_STATUS_LEASE_LOST]
                assert not late.session_alive
                await until(lambda: working.text().count("opened session") == 2)
                assert books.one_lease_each()
                assert await rescuer.complete(deliveries[running], deliveries[new]) == [ACK_STATUS_APPLIED] * 2
                assert len(rescuer.deliveries) == 3, "the replica that woke up gave nothing back"
        assert books.ends() == {
            held: End(COMPLETED, 2, 0, 0),
            running: End(COMPLETED, 2, 0, 0),
            new: End(COMPLETED, 1, 0, 0),
        }
        # It serves again, as well as before.
        [again] = await publish(slow, data="{}")
        assert (await books.finished(4))[again] == End(COMPLETED, 1, 0, 0)
    for replica in (frozen, other):
        assert not [line for line in replica.events() if line["level"] in ("error", "critical")]


async def test_a_session_resumed_elsewhere_while_its_owner_stands_still(server: Servers, books: Books) -> None:
    """The old owner wakes up with the old stream still open, and jobs waiting that it could claim for it."""
    frozen, other = server(**QUICK), server(**QUICK)
    async with wired(frozen.address) as slow, wired(other.address) as wire:
        async with worker_of(slow, max_in_flight=2) as old:
            await publish(wire)
            [delivery] = await old.receive(1)
            frozen.send(signal.SIGSTOP)
            async with resumed(wire, old, 2, [delivery.handle], max_in_flight=1) as now:
                assert now.opened.resumed and not now.opened.lost
                waiting = await publish(wire, 5)
                frozen.send(signal.SIGCONT)
                await old.until(lambda: old.ended)
                assert old.error is not None and read(old.error).reason == "SESSION_TAKEN_OVER"
                assert len(old.deliveries) == 1
                assert await now.complete(delivery) == [ACK_STATUS_APPLIED]
                for n in range(5):
                    await now.receive(n + 1)
                    assert await now.complete(now.deliveries[n]) == [ACK_STATUS_APPLIED]
                assert [one.job_id for one in now.deliveries] == waiting
                assert {one.attempt for one in now.deliveries} == {1}
        assert set((await books.finished(6)).values()) == {End(COMPLETED, 1, 0, 0)}


async def test_a_resume_at_a_replica_that_stands_still_is_overtaken(server: Servers, books: Books) -> None:
    """The client gives up waiting and resumes elsewhere; then the first one's replica wakes up and reads its call."""
    home, frozen = server(**QUICK), server(**QUICK)
    async with wired(home.address) as wire, wired(frozen.address) as slow, worker_of(wire) as old:
        await publish(wire)
        [delivery] = await old.receive(1)
        await publish(slow, queue="elsewhere")  # so that the connection stands before the replica does
        frozen.send(signal.SIGSTOP)
        second = resumed(slow, old, 2, [delivery.handle])
        await asyncio.sleep(0.5)
        async with resumed(wire, old, 3, [delivery.handle]) as third:
            assert third.opened.resumed and not third.opened.lost
            frozen.send(signal.SIGCONT)
            await second.until(lambda: second.ended)
            assert second.error is not None and second.error.code() is grpc.StatusCode.ABORTED
            assert not second.messages
            assert await third.complete(delivery) == [ACK_STATUS_APPLIED]
        assert set((await books.finished(1)).values()) == {End(COMPLETED, 1, 0, 0)}


async def test_nobody_is_lost_by_a_pause_of_the_owner_itself(server: Servers, books: Books) -> None:
    """Its stream is gone, its grace runs out while its owner stands still, and its resume waits at the owner's door."""
    replica = server(**QUICK | {"owner_grace": 60})
    async with Proxy("127.0.0.1", replica.port) as proxy, wired(proxy.address) as wire:
        async with worker_of(wire, grace=5.0) as old:
            await publish(wire)
            [delivery] = await old.receive(1)
            heartbeats = len(old.events("heartbeat"))
            await old.until(lambda: len(old.events("heartbeat")) > heartbeats + 1)
            proxy.cut()
            await until(lambda: metric(f"127.0.0.1:{replica.http_port}", "jobwire_streams") == 0)
            replica.send(signal.SIGSTOP)
            await asyncio.sleep(5.5)
            resuming = resumed(wire, old, 2, [delivery.handle], grace=5.0)
            await asyncio.sleep(0.5)
            replica.send(signal.SIGCONT)
            async with resuming as now:
                assert now.opened.resumed and not now.opened.lost
                assert await now.complete(delivery) == [ACK_STATUS_APPLIED]
        assert set((await books.finished(1)).values()) == {End(COMPLETED, 1, 0, 0)}


async def test_an_attached_session_survives_a_pause_of_its_owner(server: Servers, books: Books) -> None:
    """For far longer than three heartbeats: they are counted in beats that were sent."""
    replica = server(**QUICK | {"owner_grace": 60})
    async with wired(replica.address) as wire, worker_of(wire) as worker:
        await publish(wire)
        [delivery] = await worker.receive(1)
        replica.send(signal.SIGSTOP)
        await asyncio.sleep(4.5)
        replica.send(signal.SIGCONT)
        heartbeats = len(worker.events("heartbeat"))
        await worker.until(lambda: len(worker.events("heartbeat")) > heartbeats + 2)
        assert await worker.complete(delivery) == [ACK_STATUS_APPLIED]
        assert books.ends() == {delivery.job_id: End(COMPLETED, 1, 0, 0)}
