"""How a worker stops: it finishes or gives back what it runs, reports everything, and leaves in order."""

from __future__ import annotations

import asyncio
import signal
import sys
import textwrap
import threading
from pathlib import Path

import grpc
import pytest

from jobwire import Job, Worker
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.scripted_server import CUT, PATIENCE, RefusalError, ScriptedServer, all_applied, delivery


def is_quiet(ack: pb.AckRequest) -> bool:
    return ack.HasField("max_in_flight") and ack.max_in_flight == 0


def is_farewell(ack: pb.AckRequest) -> bool:
    return ack.close_session


class Desk:
    """A worker with one handler that lasts until it is let go or cancelled."""

    def __init__(self, server: ScriptedServer, stop_grace: float = PATIENCE) -> None:
        self.started = asyncio.Event()
        self.let_go = asyncio.Event()
        self.worker = Worker(server.address, stop_grace=stop_grace)
        self.worker.handler("q", concurrency=5)(self.handle)

    async def handle(self, job: Job) -> str:
        self.started.set()
        await self.let_go.wait()
        return "finished"


async def test_that_it_takes_no_more_is_said_when_the_resume_is_answered(server: ScriptedServer) -> None:
    """Before that the server may not know of it any more when the stream is open."""
    desk = Desk(server)
    async with desk.worker:
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await desk.started.wait()
        stream.end(CUT)
        stream = await server.stream()
        desk.worker.stop()
        leaving = asyncio.create_task(desk.worker.__aexit__(None, None, None))
        await asyncio.sleep(0.3)  # long enough to say it too early
        await stream.open()
        await server.ack(lambda ack: is_quiet(ack) and ack.last_sequence == 1)
        desk.let_go.set()
        await leaving


async def test_running_handlers_may_finish_and_new_deliveries_go_back(server: ScriptedServer) -> None:
    desk = Desk(server)
    async with desk.worker:
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await desk.started.wait()
        desk.worker.stop()
        leaving = asyncio.create_task(desk.worker.__aexit__(None, None, None))
        await server.ack(is_quiet)
        await stream.deliver(delivery("h-2"))
        assert (await server.settled("h-2")).WhichOneof("outcome") == "release"
        await stream.heartbeat()
        await server.ack(lambda ack: ack.last_sequence == 4)
        desk.let_go.set()
        await leaving
    assert (await server.settled("h-1")).complete.output == '"finished"'
    assert is_farewell(server.acks[-1])
    assert server.acks[-1].session_id == "s-1"


async def test_what_does_not_finish_in_time_is_cancelled_and_given_back(server: ScriptedServer) -> None:
    desk = Desk(server, stop_grace=0.05)
    async with desk.worker:
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await desk.started.wait()
    assert (await server.settled("h-1")).WhichOneof("outcome") == "release"
    assert is_farewell(server.acks[-1])


async def test_a_handler_that_breaks_because_the_worker_stops_has_not_failed(server: ScriptedServer) -> None:
    started = asyncio.Event()
    worker = Worker(server.address)

    @worker.handler("q")
    async def handle(job: Job) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("connection lost in the middle") from None

    async with worker:
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await started.wait()
        worker.stop(now=True)
    assert (await server.settled("h-1")).WhichOneof("outcome") == "release"


async def test_a_handler_that_does_not_stop_is_left_behind(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobwire.session.TIME_TO_END", 0.05)
    started, go_on = threading.Event(), threading.Event()
    worker = Worker(server.address)

    @worker.handler("q", run_in="thread")
    def stubborn(job: Job) -> None:
        started.set()
        go_on.wait(PATIENCE)

    async with worker:
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await asyncio.to_thread(started.wait)
        worker.stop(now=True)
    go_on.set()
    assert (await server.settled("h-1")).WhichOneof("outcome") == "release"
    assert is_farewell(server.acks[-1])


async def test_the_last_acks_are_repeated_until_they_are_answered(server: ScriptedServer) -> None:
    left = [RefusalError(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", retry_after=0.01)] * 5

    def answer(request: pb.AckRequest) -> pb.AckResponse:
        if request.items and left:
            raise left.pop()
        return all_applied(request)

    desk = Desk(server)
    async with desk.worker:
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await desk.started.wait()
        server.answer_ack = answer
        desk.let_go.set()
    assert sum(bool(ack.items) for ack in server.acks) == 6
    assert is_farewell(server.acks[-1])


async def test_a_stream_that_breaks_while_stopping_is_resumed_for_what_still_runs(server: ScriptedServer) -> None:
    desk = Desk(server)
    async with desk.worker:
        first = await server.opened()
        await first.deliver(delivery("h-1"))
        await desk.started.wait()
        leaving = asyncio.create_task(desk.worker.__aexit__(None, None, None))
        await server.ack(is_quiet)
        first.end(CUT)
        second = await server.opened()
        assert list(second.request.resume.held) == ["h-1"]
        acks = len(server.acks)
        await server.ack(lambda ack: is_quiet(ack) and ack in server.acks[acks - 1 :])
        desk.let_go.set()
        await leaving
    assert (await server.settled("h-1")).WhichOneof("outcome") == "complete"
    assert is_farewell(server.acks[-1])


async def test_a_worker_stops_without_a_server(server: ScriptedServer) -> None:
    await server.stop()
    worker = Worker(server.address)

    @worker.handler("q")
    async def handle(job: Job) -> None: ...

    async with asyncio.timeout(PATIENCE), worker:
        worker.stop()
        worker.stop()
    worker.stop()


async def test_a_worker_may_run_again(server: ScriptedServer) -> None:
    desk = Desk(server)
    for session in ("s-1", "s-2"):
        running = asyncio.create_task(desk.worker.run())
        await server.opened(session)
        desk.worker.stop()
        await running
        assert server.acks[-1].session_id == session


async def test_a_worker_without_handlers_is_refused(server: ScriptedServer) -> None:
    with pytest.raises(ValueError, match="has no handlers"):
        await Worker(server.address).run()


SCRIPT = """
    import asyncio, sys
    from jobwire import Job, Worker

    worker = Worker(sys.argv[1])

    @worker.handler("q", concurrency=2)
    async def handle(job: Job) -> str:
        await job.extend(60)
        if job.data:
            await asyncio.Event().wait()
        await asyncio.sleep(0.2)
        return "finished"

    if __name__ == "__main__":
        worker.run_forever()
        print("left in order")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_signal_ends_a_worker_in_order_and_a_second_one_soon(
    server: ScriptedServer, tmp_path: Path, number: signal.Signals
) -> None:
    script = tmp_path / "a_worker.py"
    script.write_text(textwrap.dedent(SCRIPT))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), server.address, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    stream = await server.opened()
    await stream.deliver(delivery("short"), delivery("endless", "true"))
    await server.ack(lambda ack: any(item.handle == "short" for item in ack.items))
    await server.ack(lambda ack: any(item.handle == "endless" for item in ack.items))
    process.send_signal(number)
    await server.ack(is_quiet)
    assert (await server.settled("short")).complete.output == '"finished"'
    process.send_signal(number)
    assert (await server.settled("endless")).WhichOneof("outcome") == "release"
    output, errors = await process.communicate()
    assert (process.returncode, output.decode().strip(), errors.decode()) == (0, "left in order", "")
    assert is_farewell(server.acks[-1])
