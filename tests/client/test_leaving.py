"""How a worker leaves when an operator asks for it, and how a handler shares its places among several queues."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from pathlib import Path

import pytest

from jobwire import Job, QueueShare, Worker
from jobwire.v1 import queue_service_pb2 as pb
from jobwire.v1 import session_pb2
from tests.client.scripted_server import CUT, PATIENCE, ScriptedServer, delivery


class Desk:
    """A worker with two handlers that last until they are let go."""

    def __init__(self, server: ScriptedServer) -> None:
        self.started = asyncio.Event()
        self.let_go = asyncio.Event()
        # A grace that nothing could finish within.
        self.worker = Worker(server.address, stop_grace=0.0)
        self.worker.handler("q", concurrency=5)(self.handle)
        self.worker.handler("r", concurrency=5)(self.handle)

    async def handle(self, job: Job) -> str:
        self.started.set()
        await self.let_go.wait()
        return "finished"


def is_quiet(session: str, ack: pb.AckRequest) -> bool:
    return ack.session_id == session and ack.HasField("max_in_flight") and ack.max_in_flight == 0


async def test_it_finishes_what_runs_however_long_that_takes_and_ends(server: ScriptedServer) -> None:
    desk = Desk(server)
    working = asyncio.create_task(desk.worker.run())
    one, other = await server.opened("s-1"), await server.opened("s-2")
    await one.deliver(delivery("h-1"))
    await desk.started.wait()
    await other.send(quiet=session_pb2.Quiet())
    for session in ("s-1", "s-2"):
        await server.ack(lambda ack, session=session: is_quiet(session, ack))  # type: ignore[misc]
    await one.deliver(delivery("h-2"))
    assert (await server.settled("h-2")).WhichOneof("outcome") == "release"
    await asyncio.sleep(0.2)
    assert not working.done()
    desk.let_go.set()
    async with asyncio.timeout(PATIENCE):
        await working
    assert (await server.settled("h-1")).complete.output == '"finished"'
    assert {ack.session_id for ack in server.acks if ack.close_session} == {"s-1", "s-2"}


async def test_a_stop_meanwhile_has_its_grace(server: ScriptedServer) -> None:
    desk = Desk(server)
    working = asyncio.create_task(desk.worker.run())
    one, _ = await server.opened("s-1"), await server.opened("s-2")
    await one.deliver(delivery("h-1"))
    await desk.started.wait()
    await one.send(quiet=session_pb2.Quiet())
    await server.ack(lambda ack: is_quiet("s-1", ack))
    desk.worker.stop()
    async with asyncio.timeout(PATIENCE):
        await working
    assert (await server.settled("h-1")).WhichOneof("outcome") == "release"


async def test_a_stream_that_breaks_meanwhile_is_resumed_for_what_still_runs(server: ScriptedServer) -> None:
    desk = Desk(server)
    working = asyncio.create_task(desk.worker.run())
    one, _ = await server.opened("s-1"), await server.opened("s-2")
    await one.deliver(delivery("h-1"))
    await desk.started.wait()
    await one.send(quiet=session_pb2.Quiet())
    await server.ack(lambda ack: is_quiet("s-1", ack))
    one.end(CUT)
    again = await server.opened()
    assert list(again.request.resume.held) == ["h-1"]
    await again.send(quiet=session_pb2.Quiet())
    desk.let_go.set()
    async with asyncio.timeout(PATIENCE):
        await working
    assert (await server.settled("h-1")).WhichOneof("outcome") == "complete"


async def test_its_process_ends_with_0(server: ScriptedServer, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(f"""
        from jobwire import Worker

        worker = Worker({server.address!r})

        @worker.handler("q")
        async def handle(job):
            return 1

        if __name__ == "__main__":
            worker.run_forever()
        """)
    )
    process = await asyncio.create_subprocess_exec(sys.executable, str(program))
    try:
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await server.settled("h-1")
        await stream.send(quiet=session_pb2.Quiet())
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_one_handler_takes_its_share_of_several_queues(server: ScriptedServer) -> None:
    ran: list[str] = []
    worker = Worker(server.address)

    @worker.handler("q", QueueShare("r", weight=3, max_in_flight=2, min_priority=0, max_priority=9), concurrency=5)
    async def handle(job: Job) -> None:
        ran.append(job.queue)

    async with worker:
        stream = await server.opened()
        assert list(stream.request.queues) == ["q", "r"]
        assert stream.request.max_in_flight == 5
        assert list(stream.request.shares) == [
            session_pb2.QueueShare(queue="q", weight=1),
            session_pb2.QueueShare(queue="r", weight=3, max_in_flight=2, min_priority=0, max_priority=9),
        ]
        await stream.deliver(delivery("h-1"), delivery("h-2", queue="r"))
        for handle_ in ("h-1", "h-2"):
            assert (await server.settled(handle_)).WhichOneof("outcome") == "complete"
        stream.end(CUT)
        # A resume says it again.
        again = await server.opened()
        assert len(again.request.shares) == 2
    assert ran == ["q", "r"]


async def test_who_takes_all_says_nothing_of_shares(server: ScriptedServer) -> None:
    worker = Worker(server.address)

    @worker.handler("q", "r")
    async def handle(job: Job) -> None: ...

    async with worker:
        stream = await server.opened()
        assert (list(stream.request.queues), list(stream.request.shares)) == (["q", "r"], [])


def test_a_queue_has_one_handler() -> None:
    worker = Worker("127.0.0.1:1")
    with pytest.raises(ValueError, match="'q' has a handler already"):
        worker.handler("q", QueueShare("q", weight=2))
    worker.handler("q", "r")(_nothing)
    with pytest.raises(ValueError, match="'r' has a handler already"):
        worker.handler(QueueShare("r"))


async def _nothing(job: Job) -> None: ...
