"""Blocking handlers in processes: reports and orders to stop come through, and a dead process harms only its job."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from jobwire import Job, Worker
from jobwire.processes import PROCESS_NAME
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.conftest import Working
from tests.client.process_handlers import handle
from tests.client.scripted_server import PATIENCE, ScriptedServer, Stream, delivery


async def run(server: ScriptedServer, stream: Stream, handle: str, do: str) -> pb.AckItem:
    await stream.deliver(delivery(handle, f'{{"do": "{do}"}}'))
    return await server.settled(handle)


async def reported(server: ScriptedServer, handle: str, fraction: float) -> None:
    await server.ack(
        lambda ack: any(item.handle == handle and item.extend.progress.fraction == fraction for item in ack.items)
    )


async def test_a_process_runs_one_job_after_the_other(server: ScriptedServer, working: Working) -> None:
    async with working(handle, run_in="process"):
        stream = await server.opened()
        first = (await run(server, stream, "h-1", "pid")).complete.output
        failed = (await run(server, stream, "h-2", "raise")).fail
        large = (await run(server, stream, "h-3", "large")).complete.output
        second = (await run(server, stream, "h-4", "pid")).complete.output
    assert first == second != str(os.getpid())
    assert (failed.type, failed.message, failed.permanent) == ("FailForGood", "the workbook is encrypted", True)
    assert "process_handlers.py" in failed.trace
    assert "KeyError: 'key'" in failed.trace
    assert len(large) == 400_002


@pytest.mark.parametrize(
    ("do", "kind", "message"),
    [
        ("exit", "SystemExit", "3"),
        ("die", "ProcessDied", "the process that ran the handler ended with exit code 7"),
        ("kill", "ProcessDied", "killed by SIGKILL; out of memory is the usual reason"),
    ],
)
async def test_a_process_that_dies_fails_its_job_and_is_replaced(
    server: ScriptedServer, working: Working, do: str, kind: str, message: str
) -> None:
    async with working(handle, run_in="process"):
        stream = await server.opened()
        fail = (await run(server, stream, "h-1", do)).fail
        assert (await run(server, stream, "h-2", "pid")).HasField("complete")
    assert fail.type == kind
    assert message in fail.message
    assert not fail.permanent


async def test_a_process_that_dies_while_idle_is_replaced(server: ScriptedServer, working: Working) -> None:
    async with working(handle, run_in="process"):
        stream = await server.opened()
        pid = int((await run(server, stream, "h-1", "pid")).complete.output)
        os.kill(pid, 9)
        await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert int((await run(server, stream, "h-2", "pid")).complete.output) != pid


async def test_reports_and_extensions_come_through_and_an_order_to_stop_arrives(
    server: ScriptedServer, working: Working
) -> None:
    async with working(handle, run_in="process"):
        stream = await server.opened()
        await stream.deliver(delivery("h-1", '{"do": "report"}'))
        await reported(server, "h-1", 1.0)
        await server.ack(lambda ack: any(item.extend.expire_in.seconds == 600 for item in ack.items))
        await stream.cancel("h-1")
        assert (await server.settled("h-1")).WhichOneof("outcome") == "release"
        assert (await run(server, stream, "h-2", "pid")).HasField("complete")
    reports = [item for ack in server.acks for item in ack.items if item.extend.HasField("progress")]
    assert len(reports) < 100


async def test_a_handler_that_does_not_stop_is_killed_and_its_neighbour_is_not(
    server: ScriptedServer, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobwire.processes._TIME_TO_STOP", 0.1)
    async with working(handle, run_in="process", concurrency=2):
        stream = await server.opened()
        await stream.deliver(delivery("bad", '{"do": "stubborn"}'), delivery("good", '{"do": "check"}'))
        await reported(server, "bad", 0.5)
        await reported(server, "good", 0.5)
        await stream.cancel("bad", pb.CANCEL_REASON_EXPIRED)
        assert (await server.settled("bad")).fail.type == "EXPIRED"
        assert (await run(server, stream, "next", "pid")).HasField("complete")
        assert not any(item.handle == "good" and item.HasField("release") for ack in server.acks for item in ack.items)


async def test_a_worker_that_stops_takes_its_processes_along(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobwire.session.TIME_TO_END", 0.1)
    worker = Worker(server.address)
    worker.handler("q", run_in="process")(handle)
    async with worker:
        stream = await server.opened()
        await stream.deliver(delivery("h-1", '{"do": "stubborn"}'))
        await reported(server, "h-1", 0.5)
        (process,) = (child for child in multiprocessing.active_children() if child.name == PROCESS_NAME)
        worker.stop(now=True)
    assert (await server.settled("h-1")).WhichOneof("outcome") == "release"
    await asyncio.to_thread(process.join, PATIENCE)
    assert process.exitcode == -signal.SIGKILL


UNGUARDED = """
    import sys
    from jobwire import Job, Worker

    worker = Worker(sys.argv[1], stop_grace=0)

    @worker.handler("q", run_in="process")
    def handle(job: Job) -> str:
        return "fine"

    {start}worker.run_forever()
"""


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_script_starts_its_worker_under_a_guard(server: ScriptedServer, tmp_path: Path, guarded: bool) -> None:
    script = tmp_path / "a_worker.py"
    script.write_text(textwrap.dedent(UNGUARDED).format(start='if __name__ == "__main__": ' if guarded else ""))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), server.address, stderr=asyncio.subprocess.PIPE
    )
    try:
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        item = await server.settled("h-1")
    finally:
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            _, errors = await process.communicate()
    if guarded:
        assert item.complete.output == '"fine"'
        assert errors.decode() == ""
    else:
        assert item.fail.type == "ProcessDied"
        assert '`if __name__ == "__main__":`' in item.fail.message
        assert "started inside a process that runs a handler" in errors.decode()


async def test_a_function_that_no_process_can_import_is_refused() -> None:
    worker = Worker("127.0.0.1:1")

    def local(job: Job) -> None: ...

    worker.handler("q", run_in="process")(local)
    with pytest.raises(TypeError, match="top level of a module"):
        await worker.run()
