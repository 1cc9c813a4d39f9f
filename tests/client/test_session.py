"""The worker's half of the session protocol, edge by edge: docs/protocol.md, "the life of a worker"."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest

from jobwire import InvalidArgument, Job, Worker
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.conftest import Working
from tests.client.held import Held
from tests.client.scripted_server import CUT, PATIENCE, RefusalError, ScriptedServer, delivery

LOST = RefusalError(grpc.StatusCode.NOT_FOUND, "SESSION_LOST")
TAKEN_OVER = RefusalError(grpc.StatusCode.ABORTED, "SESSION_TAKEN_OVER")


@pytest.fixture
def held() -> Held:
    return Held()


async def test_a_job_is_delivered_run_and_settled(server: ScriptedServer, working: Working) -> None:
    seen: list[Job] = []

    async def handle(job: Job) -> dict[str, object]:
        seen.append(job)
        return {"straße": [1, 2.5, None]}

    async with working(handle, concurrency=7):
        stream = await server.stream()
        assert list(stream.request.queues) == ["q"]
        assert stream.request.max_in_flight == 7
        assert stream.request.worker == "tester"
        assert not stream.request.HasField("resume")
        await stream.open()
        sequence = await stream.deliver(
            delivery("h-1", '{"n": 9007199254740993}', headers={"traceparent": "00-1"}, attempt=3, priority=-4)
        )
        item = await server.settled("h-1")
    assert item.complete.output == '{"straße":[1,2.5,null]}'
    (ack,) = [ack for ack in server.acks if ack.items]
    assert (ack.session_id, ack.last_sequence) == ("s-1", sequence)
    (job,) = seen
    assert job.data == {"n": 9007199254740993}
    assert (job.id, job.queue, job.attempt, job.priority) == ("job-of-h-1", "q", 3, -4)
    assert dict(job.headers) == {"traceparent": "00-1"}


async def test_a_broken_stream_is_resumed_and_the_handler_goes_on(
    server: ScriptedServer, working: Working, held: Held
) -> None:
    async with working(held, concurrency=2):
        first = await server.opened()
        await first.deliver(delivery("h-1"), delivery("h-2"))
        await held.started("h-1")
        await held.started("h-2")
        held.release("h-2")
        await server.settled("h-2")
        first.end(CUT)
        second = await server.stream()
        assert second.request.resume == pb.Resume(session_id="s-1", epoch=2, held=["h-1"])
        await second.open()
        held.release("h-1")
        item = await server.settled("h-1")
    assert item.WhichOneof("outcome") == "complete"
    assert held.runs == {"job-of-h-1": 1, "job-of-h-2": 1}
    assert held.cancelled == []


async def test_what_is_delivered_twice_runs_once_and_what_is_too_much_goes_back(
    server: ScriptedServer, working: Working, held: Held
) -> None:
    async with working(held, concurrency=2):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"), delivery("h-1"), delivery("h-2"), delivery("h-3"))
        assert (await server.settled("h-3")).WhichOneof("outcome") == "release"
        await stream.deliver(delivery("h-2"))
        held.release("h-1")
        held.release("h-2")
        for handle in ("h-1", "h-2"):
            assert (await server.settled(handle)).WhichOneof("outcome") == "complete"
    assert held.runs == {"job-of-h-1": 1, "job-of-h-2": 1}


async def test_each_attempt_to_resume_carries_a_higher_epoch(
    server: ScriptedServer, working: Working, held: Held
) -> None:
    async with working(held):
        (await server.opened()).end(CUT)
        for epoch in (2, 3, 4):
            stream = await server.stream()
            assert stream.request.resume.epoch == epoch
            stream.end(CUT)
        (await server.opened()).end()
        assert (await server.stream()).request.resume.epoch == 6


async def test_one_stream_at_a_time(server: ScriptedServer, working: Working, held: Held) -> None:
    async with working(held):
        first = await server.opened(heartbeat=0.05, grace=0.15)
        # Nothing more is said: the client leaves the stream, and only then makes the next.
        second = await server.stream()
        async with asyncio.timeout(PATIENCE):
            await first.left.wait()
        assert second.request.resume.epoch == 2
        assert server.no_stream()


async def test_what_the_resume_lists_lost_is_dropped(server: ScriptedServer, working: Working, held: Held) -> None:
    async with working(held, concurrency=2):
        first = await server.opened()
        await first.deliver(delivery("h-1"), delivery("h-2"))
        await held.started("h-1")
        await held.started("h-2")
        first.end(CUT)
        second = await server.stream()
        assert list(second.request.resume.held) == ["h-1", "h-2"]
        await second.open(lost=["h-1"])
        held.release("h-2")
        await server.settled("h-2")
        second.end(CUT)
        assert list((await server.stream()).request.resume.held) == []
    assert held.cancelled == ["job-of-h-1"]
    assert "h-1" not in {item.handle for ack in server.acks for item in ack.items}


@pytest.mark.parametrize("refusal", [LOST, TAKEN_OVER], ids=["lost", "taken-over"])
async def test_a_session_that_is_over_at_the_resume_is_replaced(
    server: ScriptedServer, working: Working, held: Held, refusal: RefusalError
) -> None:
    async with working(held):
        first = await server.opened()
        await first.deliver(delivery("h-1"))
        await held.started("h-1")
        first.end(CUT)
        (await server.stream()).end(refusal)
        fresh = await server.stream()
        assert not fresh.request.HasField("resume")
        assert held.cancelled == ["job-of-h-1"]
        await fresh.open("s-2")
        await fresh.deliver(delivery("h-2"))
        await held.started("h-2")
        fresh.end(CUT)
        assert (await server.stream()).request.resume == pb.Resume(session_id="s-2", epoch=2, held=["h-2"])


async def test_a_takeover_ends_the_stream_and_its_handlers(
    server: ScriptedServer, working: Working, held: Held
) -> None:
    async with working(held):
        first = await server.opened()
        await first.deliver(delivery("h-1"))
        await held.started("h-1")
        first.end(TAKEN_OVER)
        fresh = await server.stream()
        assert not fresh.request.HasField("resume")
    assert held.cancelled == ["job-of-h-1"]


async def test_an_ack_tells_that_the_session_is_over(server: ScriptedServer, working: Working, held: Held) -> None:
    def dead(request: pb.AckRequest) -> pb.AckResponse:
        return pb.AckResponse(session_alive=request.session_id != "s-1")

    async with working(held):
        first = await server.opened("s-1")
        await first.deliver(delivery("h-1"))
        await held.started("h-1")
        server.answer_ack = dead
        await first.heartbeat()
        fresh = await server.opened("s-2")
        assert not fresh.request.HasField("resume")
        assert held.cancelled == ["job-of-h-1"]
        async with asyncio.timeout(PATIENCE):
            await first.left.wait()


async def test_a_drain_is_followed_by_a_resume_within_its_own_grace(
    server: ScriptedServer, working: Working, held: Held
) -> None:
    async with working(held):
        first = await server.opened(heartbeat=0.05, grace=0.15)
        await first.deliver(delivery("h-1"))
        await held.started("h-1")
        await first.drain(resume_within=300)
        for _ in range(4):
            # Together these attempts take longer than the grace that held before the drain.
            (await server.stream()).end(RefusalError(grpc.StatusCode.UNAVAILABLE, "DRAINING", retry_after=0.05))
        last = await server.opened()
        assert list(last.request.resume.held) == ["h-1"]
        held.release("h-1")
        assert (await server.settled("h-1")).WhichOneof("outcome") == "complete"
    assert held.cancelled == []


async def test_silence_cancels_handlers_and_gives_their_jobs_back(
    server: ScriptedServer, working: Working, held: Held
) -> None:
    async with working(held):
        first = await server.opened(heartbeat=0.05, grace=0.15)
        await first.deliver(delivery("h-1"))
        await held.started("h-1")
        await server.stop()  # no Ack is answered either
        async with asyncio.timeout(PATIENCE):
            await first.left.wait()
            await held.any_cancelled.wait()
        await server.start()
        await server.opened()
        assert (await server.settled("h-1")).WhichOneof("outcome") == "release"


async def test_a_restarted_server_is_found_again(server: ScriptedServer, working: Working, held: Held) -> None:
    async with working(held):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await held.started("h-1")
        await server.stop()
        await server.start()
        await server.opened()
        held.release("h-1")
        assert (await server.settled("h-1")).WhichOneof("outcome") == "complete"


async def test_a_worker_waits_for_a_server_that_is_not_there_yet(
    server: ScriptedServer, working: Working, held: Held
) -> None:
    await server.stop()
    async with working(held):
        await server.start()
        await server.opened()


async def test_a_worker_waits_for_a_queue_that_is_not_there_yet(
    server: ScriptedServer, working: Working, held: Held
) -> None:
    async with working(held):
        (await server.stream()).end(RefusalError(grpc.StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND"))
        assert not (await server.opened()).request.HasField("resume")


async def test_a_refused_registration_ends_the_worker_with_the_servers_words(server: ScriptedServer) -> None:
    worker = Worker(server.address)

    @worker.handler("no:colon")
    async def handle(job: Job) -> None: ...

    @worker.handler("fine")
    async def other(job: Job) -> None: ...

    running = asyncio.create_task(worker.run())
    streams = [await server.stream(), await server.stream()]
    bad = next(stream for stream in streams if stream.request.queues == ["no:colon"])
    bad.end(RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "letters only", field="queues[0]"))
    with pytest.raises(InvalidArgument, match="letters only") as caught:
        await running
    assert caught.value.field_violations[0].field == "queues[0]"


async def test_a_handler_without_a_lease_keeps_its_place_until_it_ends(
    server: ScriptedServer, working: Working
) -> None:
    started, go_on = threading.Event(), threading.Event()

    def stubborn(job: Job) -> None:
        started.set()
        go_on.wait(PATIENCE)

    async with working(stubborn, concurrency=1, run_in="thread"):
        first = await server.opened()
        await first.deliver(delivery("h-1"))
        async with asyncio.timeout(PATIENCE):
            await asyncio.to_thread(started.wait)
        first.end(CUT)
        await server.opened(lost=["h-1"])
        await server.ack(lambda ack: ack.HasField("max_in_flight") and ack.max_in_flight == 0)
        go_on.set()
        await server.ack(lambda ack: ack.HasField("max_in_flight") and ack.max_in_flight == 1)


async def test_no_session_is_opened_while_no_place_is_free(server: ScriptedServer, working: Working) -> None:
    started, go_on = threading.Event(), threading.Event()

    def stubborn(job: Job) -> None:
        started.set()
        go_on.wait(PATIENCE)

    async with working(stubborn, concurrency=1, run_in="thread"):
        first = await server.opened()
        await first.deliver(delivery("h-1"))
        async with asyncio.timeout(PATIENCE):
            await asyncio.to_thread(started.wait)
        first.end(TAKEN_OVER)
        waiting = asyncio.create_task(server.stream())
        await first.left.wait()
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        go_on.set()
        assert (await waiting).request.max_in_flight == 1
