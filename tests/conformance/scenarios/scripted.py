"""Edges of the session protocol that a real server shows too seldom to wait for; here it is played by script.

Each comes about by what crosses on its way: an Ack with a resume, a refusal with the end of a run, a stop with silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc

from jobwire.v1 import queue_service_pb2 as pb
from tests.client.scripted_server import CUT, RefusalError, ScriptedServer, Stream, all_applied, delivery
from tests.conformance.driver import Driver
from tests.conformance.scenario import scenario
from tests.conformance.stage import Stage

_NO_ANSWER = RefusalError(grpc.StatusCode.UNAVAILABLE)
_CROSSING = 0.5
"""What is to cross on its way comes so many seconds later; a client that is slower passes all the same."""


async def _scripted(stage: Stage, **terms: object) -> tuple[ScriptedServer, Driver, Stream]:
    """A server, and the worker of a driver that has come to it and waits for its session to be opened."""
    server = ScriptedServer()
    stage.at_the_end(server.stop)
    await server.start()
    driver = await stage.driver(server.address)
    await driver.work("q", **terms)  # type: ignore[arg-type]
    return server, driver, await server.stream()


async def _running(driver: Driver, stream: Stream, *handles: str) -> None:
    """Have the handlers of these deliveries run."""
    await stream.deliver(*map(delivery, handles))
    for handle in handles:
        await driver.started(f"job-of-{handle}")


def _ends(request: pb.AckRequest) -> list[pb.AckItem]:
    return [item for item in request.items if not item.HasField("extend")]


def _silent_but_for(heard: Callable[[pb.AckRequest], bool]) -> Callable[[pb.AckRequest], pb.AckResponse]:
    def answer(request: pb.AckRequest) -> pb.AckResponse:
        if not heard(request):
            raise _NO_ANSWER
        return all_applied(request)

    return answer


async def _resumed_without(server: ScriptedServer, driver: Driver, stream: Stream) -> Stream:
    """Have a handler run on though its delivery is about to be lost: the stream at whose opening that is to be said."""
    await stream.open()
    await _running(driver, stream, "h-1")
    stream.end(CUT)
    return await server.stream()


async def _names_credits(stage: Stage, server: ScriptedServer, places: int, after: int) -> None:
    """Wait for an Ack with so many credits, after the first so many Acks."""
    await _until(stage, lambda: any(ack.max_in_flight == places for ack in server.acks[after:]))


async def _until(stage: Stage, holds: Callable[[], bool]) -> None:
    async def look() -> bool:
        return holds()

    await stage.until(look)


@scenario
async def refused_progress(stage: Stage) -> None:
    """A progress report that the server refuses takes nothing from the job, also if its handler completes meanwhile."""
    server, driver, stream = await _scripted(stage)
    arrived, go = asyncio.Event(), asyncio.Event()

    async def answer(request: pb.AckRequest) -> pb.AckResponse:
        if _ends(request) == list(request.items):
            return all_applied(request)
        arrived.set()
        await go.wait()
        raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", field="items[0].extend.progress")

    server.answer_ack = answer
    await stream.open()
    await _running(driver, stream, "h-1")
    await driver.progress("job-of-h-1", 0.5, "half of it")
    await asyncio.wait_for(arrived.wait(), stage.patience)
    await driver.complete("job-of-h-1", "done")
    await asyncio.sleep(_CROSSING)
    go.set()
    assert (await server.settled("h-1")).complete.output == '"done"'


@scenario
async def checkpoint_first(stage: Stage) -> None:
    """The end of a failed run is said when its checkpoint has arrived, also if the server is silent in between."""
    server, driver, stream = await _scripted(stage)
    await stream.open(heartbeat=1, grace=3)
    await _running(driver, stream, "h-1")
    server.answer_ack = _silent_but_for(lambda _: False)
    await driver.progress("job-of-h-1", 0.5, "half of it", checkpoint=7)
    await driver.fail("job-of-h-1", "Broken", "the other half is missing")
    # It comes again since nothing was heard; by now the silence has lasted long enough to stop handlers, too.
    stream = await server.stream()
    await asyncio.sleep(_CROSSING)
    unanswered = server.acks
    server.answer_ack = all_applied
    await stream.open(heartbeat=1, grace=3)
    await server.settled("h-1")
    assert not any(map(_ends, unanswered)), unanswered
    told = [item for ack in server.acks[len(unanswered) :] for item in ack.items]
    assert told[0].extend.progress.checkpoint == "7", told


@scenario
async def unanswered_stop(stage: Stage) -> None:
    """A worker that is stopped while its Acks are not answered ends in order all the same, and says that it leaves."""
    server, driver, stream = await _scripted(stage, concurrency=3, stop_grace=0)
    await stream.open()
    await _running(driver, stream, "leaves a checkpoint", "completes", "runs")
    server.answer_ack = _silent_but_for(lambda request: request.close_session)
    await driver.progress("job-of-leaves a checkpoint", 0.5, "half of it", checkpoint=7)
    await driver.fail("job-of-leaves a checkpoint", "Broken", "the other half is missing")
    await driver.complete("job-of-completes")
    await asyncio.sleep(_CROSSING)
    await driver.stop()
    assert (await driver.hears("worker_ended"))["error"] is None
    assert any(ack.close_session for ack in server.acks)
    assert "completes" in {item.handle for ack in server.acks for item in _ends(ack)}


@scenario
async def lost_lease(stage: Stage) -> None:
    """Of a delivery that was lost meanwhile nothing is said any more, and when its handler has ended its place is told
    free, also if that is during a resume.
    """
    server, driver, stream = await _scripted(stage, concurrency=2, deaf=True)
    stream = await _resumed_without(server, driver, stream)
    await stream.open(lost=["h-1"])
    await server.ack(lambda ack: ack.max_in_flight == 1)
    await driver.hears("stopping", job_id="job-of-h-1")
    await driver.progress("job-of-h-1", 0.5, "to nobody", checkpoint=7)
    stream.end(CUT)
    stream = await server.stream()
    assert stream.request.max_in_flight == 1
    await driver.fail("job-of-h-1", "Broken", "to nobody")
    await asyncio.sleep(_CROSSING)
    before = len(server.acks)
    await stream.open()
    # What was said earlier of credits, the Subscribe overruled.
    await _names_credits(stage, server, 2, before)
    assert not [item for ack in server.acks for item in ack.items]


@scenario
async def unsure_credits(stage: Stage) -> None:
    """A worker names its credits again if an Ack that named others was overtaken by a resume, or not answered."""
    for overtaken in (True, False):
        server, driver, stream = await _scripted(stage, deaf=True)
        stream = await _resumed_without(server, driver, stream)
        arrived, go = asyncio.Event(), asyncio.Event()

        async def answer(
            request: pb.AckRequest,
            overtaken: bool = overtaken,
            arrived: asyncio.Event = arrived,
            go: asyncio.Event = go,
        ) -> pb.AckResponse:
            if request.HasField("max_in_flight") and not arrived.is_set():
                assert request.max_in_flight == 0
                arrived.set()
                await go.wait()
                if not overtaken:
                    raise _NO_ANSWER
            return all_applied(request)

        server.answer_ack = answer
        await stream.open(lost=["h-1"])
        await asyncio.wait_for(arrived.wait(), stage.patience)
        await driver.complete("job-of-h-1")
        await asyncio.sleep(_CROSSING)
        if overtaken:
            stream.end(CUT)
            stream = await server.stream()
            assert stream.request.max_in_flight == 1
            await stream.open()
            await asyncio.sleep(_CROSSING)
        go.set()
        await _names_credits(stage, server, 1, 0)


@scenario
async def receipt(stage: Stage) -> None:
    """A job that was delivered before begins when an Ack of the same stream has told of its arrival."""
    server, driver, stream = await _scripted(stage, concurrency=2)
    receipts: list[pb.AckRequest] = []
    go = asyncio.Event()

    async def answer(request: pb.AckRequest) -> pb.AckResponse:
        if request.last_sequence == 2:
            receipts.append(request)
            await go.wait()
        return all_applied(request)

    server.answer_ack = answer
    await stream.open()
    await stream.deliver(delivery("h-1", attempt=2))
    await _until(stage, lambda: len(receipts) == 1)
    stream.end(CUT)
    stream = await server.stream()
    await stream.open()
    # The second event of that stream too.
    await stream.deliver(delivery("h-2", attempt=2))
    await _until(stage, lambda: len(receipts) >= 2)
    assert not driver.said("started")
    go.set()
    await driver.started("job-of-h-1")
    await driver.started("job-of-h-2")
