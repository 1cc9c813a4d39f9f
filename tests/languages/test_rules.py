"""The rules of docs/protocol.md that need a server which does what a test says, for workers without tests of their own.

They speak to the drivers of the conformance suite, which has the other rules, and so know no language.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from jobwire.v1 import queue_service_pb2 as pb
from tests.chaos.proxy import Proxy
from tests.client.scripted_server import CUT, RefusalError, ScriptedServer, all_applied, delivery
from tests.conformance.clients import CLIENTS
from tests.conformance.driver import Driver
from tests.system.conftest import ServerProcess


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(params=["java", "rust"])
def command(request: pytest.FixtureRequest) -> list[str]:
    """How a driver is run."""
    client = CLIENTS[request.param]
    if client.missing:
        pytest.skip(client.missing)
    return client.command


@pytest.fixture
async def driver(command: list[str], scripted: ScriptedServer, tmp_path: Path) -> AsyncIterator[Driver]:
    """The worker of a library, on queue `q` of the scripted server, ten jobs at once."""
    async with Driver(command, tmp_path / "driver.log") as driver:
        await driver.connect(scripted.address)
        await driver.work("q", concurrency=10)
        yield driver


@pytest.mark.parametrize("refused", [False, True])
async def test_only_a_job_delivered_before_waits_for_its_receipt(
    scripted: ScriptedServer, driver: Driver, refused: bool
) -> None:
    known = asyncio.Event()
    receipts: list[int] = []

    async def answer(request: pb.AckRequest) -> pb.AckResponse:
        if not request.items:
            receipts.append(request.last_sequence)
            await known.wait()
            if refused:
                raise RefusalError(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        return all_applied(request)

    scripted.answer_ack = answer
    stream = await scripted.opened()
    await stream.deliver(delivery("again", attempt=2), delivery("and-again", attempt=7), delivery("new"))
    await driver.started("job-of-new")
    await driver.complete("job-of-new")
    await scripted.settled("new")
    await scripted.ack(lambda ack: not ack.items)
    assert len(driver.said("started")) == 1
    assert receipts == [2], "one for all that came together, and it names their event"
    known.set()
    for handle in ("again", "and-again"):
        await driver.started(f"job-of-{handle}")
        await driver.complete(f"job-of-{handle}")
        await scripted.settled(handle)


async def test_a_job_that_is_cancelled_before_its_receipt_is_known_never_begins(
    scripted: ScriptedServer, driver: Driver
) -> None:
    known = asyncio.Event()

    async def answer(request: pb.AckRequest) -> pb.AckResponse:
        if not request.items:
            await known.wait()
        return all_applied(request)

    scripted.answer_ack = answer
    stream = await scripted.opened()
    await stream.deliver(delivery("again", attempt=2))
    await stream.cancel("again")
    assert (await scripted.settled("again")).HasField("release")
    known.set()
    assert driver.said("started") == []


async def test_a_locked_job_harms_no_other(scripted: ScriptedServer, driver: Driver) -> None:
    """Its statement is repeated alone until it is applied, and those that were on their way with it are not held up."""
    first_answered, locked = asyncio.Event(), True
    applied: list[str] = []
    refused: list[list[str]] = []

    async def answer(request: pb.AckRequest) -> pb.AckResponse:
        handles = [item.handle for item in request.items]
        if handles == ["h-0"]:
            await first_answered.wait()
        if locked and "h-5" in handles:
            refused.append(handles)
            raise RefusalError(grpc.StatusCode.ABORTED, "LOCK_TIMEOUT")
        applied.extend(handles)
        return all_applied(request)

    scripted.answer_ack = answer
    stream = await scripted.opened()
    await stream.deliver(*(delivery(f"h-{n}") for n in range(8)))
    await driver.hears_all("started", 8)
    await driver.complete("job-of-h-0")
    await scripted.settled("h-0")
    for n in range(1, 8):
        await driver.complete(f"job-of-h-{n}")
    first_answered.set()
    async with asyncio.timeout(60):
        while len(applied) < 7:
            await asyncio.sleep(0.02)
        # It is found by halves, and alone from then on.
        while ["h-5"] not in refused:
            await asyncio.sleep(0.02)
        assert all(
            len(half) <= (len(whole) + 1) // 2 for whole, half in pairwise(refused[: refused.index(["h-5"]) + 1])
        )
        await stream.deliver(delivery("h-8"))
        await driver.started("job-of-h-8")
        await driver.complete("job-of-h-8")
        while "h-8" not in applied or refused.count(["h-5"]) < 3:
            await asyncio.sleep(0.02)
        assert not any("h-8" in handles for handles in refused)
        locked = False
        while applied[-1] != "h-5":
            await asyncio.sleep(0.02)
    assert sorted(applied) == [f"h-{n}" for n in range(9)], "each was applied once"


async def test_what_is_not_answered_is_held_through_each_resume(scripted: ScriptedServer, driver: Driver) -> None:
    """Also an end that was said but not answered; each Subscribe has a higher epoch, after the end of the last."""
    away = True

    def answer(request: pb.AckRequest) -> pb.AckResponse:
        if away and request.items:
            raise RefusalError(grpc.StatusCode.UNAVAILABLE)
        return all_applied(request)

    scripted.answer_ack = answer
    stream = await scripted.opened()
    await stream.deliver(delivery("runs"), delivery("ended"), delivery("lost"))
    await driver.hears_all("started", 3)
    await driver.complete("job-of-ended", "kept")
    await scripted.settled("ended")
    for epoch in (2, 3, 4):
        stream.end(CUT)
        before, stream = stream, await scripted.stream()
        assert before.over
        resume = stream.request.resume
        assert (resume.session_id, resume.epoch) == ("s-1", epoch)
        assert sorted(resume.held) == ["ended", "lost", "runs"]
        if epoch == 3:
            continue  # it never comes to an answer
        await stream.open(lost=["lost"] if epoch == 4 else [])
    stopping = await driver.hears("stopping", job_id="job-of-lost")
    assert stopping["reason"] == "lease_lost"
    away = False
    async with asyncio.timeout(60):
        while not any(item.handle == "ended" for ack in scripted.acks[-3:] for item in ack.items):
            await asyncio.sleep(0.02)
    await driver.complete("job-of-runs", "after it all")
    assert (await scripted.settled("runs")).complete.output == '"after it all"'
    assert not any(item.handle == "lost" for ack in scripted.acks for item in ack.items)
    assert len(driver.said("started")) == 3


async def test_a_session_that_is_lost_is_followed_by_a_new_one(scripted: ScriptedServer, driver: Driver) -> None:
    stream = await scripted.opened()
    await stream.deliver(delivery("h-1"))
    await driver.started("job-of-h-1")
    stream.end(CUT)
    (await scripted.stream()).end(RefusalError(grpc.StatusCode.NOT_FOUND, "SESSION_LOST"))
    assert (await driver.hears("stopping", job_id="job-of-h-1"))["reason"] == "lease_lost"
    stream = await scripted.opened("s-2")
    assert not stream.request.HasField("resume")
    await stream.deliver(delivery("h-2"))
    await driver.started("job-of-h-2")
    await driver.complete("job-of-h-2")
    ack = await scripted.ack(lambda ack: any(item.handle == "h-2" for item in ack.items))
    assert ack.session_id == "s-2"
    assert not any(item.handle == "h-1" for ack in scripted.acks for item in ack.items)


async def test_a_silent_server_stops_handlers_and_each_stream(scripted: ScriptedServer, driver: Driver) -> None:
    """After two thirds of the grace without a sign; what they had in hand is given back as soon as that can be said."""
    silent = asyncio.Event()

    async def answer(request: pb.AckRequest) -> pb.AckResponse:
        await silent.wait()
        return all_applied(request)

    scripted.answer_ack = answer
    stream = await scripted.opened(heartbeat=1.0, grace=3.0)
    await stream.deliver(delivery("h-1"))
    await driver.started("job-of-h-1")
    assert (await driver.hears("stopping", job_id="job-of-h-1"))["reason"] == "silence"
    resumed = await scripted.stream()
    assert stream.left.is_set() or await asyncio.wait_for(stream.left.wait(), 20)
    assert list(resumed.request.resume.held) == ["h-1"]
    await resumed.open()
    silent.set()
    assert (await scripted.settled("h-1")).HasField("release")


async def test_after_draining_the_grace_that_was_named_holds(scripted: ScriptedServer, driver: Driver) -> None:
    """The session is resumed after about the delay that the server asked for, and its handlers are not disturbed."""
    stream = await scripted.opened(heartbeat=1.0, grace=1.0)
    await stream.deliver(delivery("h-1"))
    await driver.started("job-of-h-1")
    # Longer than two thirds of what held before.
    loop = asyncio.get_running_loop()
    drained = loop.time()
    await stream.drain(resume_within=300.0, reconnect_delay=6.0)
    resumed = await scripted.stream()
    assert loop.time() - drained >= 3
    assert list(resumed.request.resume.held) == ["h-1"]
    await resumed.open()
    assert driver.said("stopping") == []
    await driver.complete("job-of-h-1")
    await scripted.settled("h-1")


async def test_a_stop_gives_back_what_comes_late_and_says_good_bye(scripted: ScriptedServer, driver: Driver) -> None:
    stream = await scripted.opened()
    await stream.deliver(delivery("h-1"))
    await driver.started("job-of-h-1")
    stopping = asyncio.create_task(driver.stop())
    await scripted.ack(lambda ack: ack.HasField("max_in_flight") and ack.max_in_flight == 0)
    await stream.deliver(delivery("late"))
    assert (await scripted.settled("late")).HasField("release")
    assert not scripted.acks[-1].close_session
    await driver.complete("job-of-h-1")
    await stopping
    assert scripted.acks[-1].close_session
    assert [event["job_id"] for event in driver.said("started")] == ["job-of-h-1"]


async def test_silence_stops_handlers_where_no_other_connection_is_to_be_had(
    server: Callable[..., ServerProcess], command: list[str], tmp_path: Path
) -> None:
    """Once one is, the worker goes on, which is sooner than what a keepalive would find out."""
    upstream = server()
    async with (
        Proxy("127.0.0.1", upstream.port) as proxy,
        Driver(command, tmp_path / "driver.log") as driver,
    ):
        await driver.connect(proxy.address)
        await driver.work("q", concurrency=2, heartbeat_interval=1, resume_grace=3)
        [first] = await driver.publish("q", {"data": 1})
        await driver.started(first["job_id"])
        proxy.forget()
        proxy.refuse()
        stopping = await driver.hears("stopping", job_id=first["job_id"])
        assert stopping["reason"] == "silence"
        proxy.refuse(refusing=False)
        # Its lease may have been over by then, or not.
        await driver.connect(upstream.address)
        [second] = await driver.publish("q", {"data": 2, "priority": 1})
        async with asyncio.timeout(25):  # the keepalive takes 40 s
            await driver.started(second["job_id"])
        await driver.stop(now=True)
