"""Checkpoints: what a run leaves for the next one arrives before the run's end is reported, and is handed out again."""

from __future__ import annotations

import asyncio
import json

import pytest

from jobwire import BatchJob, Job, Worker
from jobwire.reporting import INTERVAL
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.conftest import Working
from tests.client.process_handlers import handle as in_process
from tests.client.scripted_server import ScriptedServer, all_applied, delivery


def left(server: ScriptedServer, handle: str) -> list[str]:
    """The checkpoints that arrived before the end of a delivery, in order."""
    found: list[str] = []
    for ack in server.acks:
        for item in ack.items:
            if item.handle == handle and item.HasField("extend"):
                if item.extend.progress.HasField("checkpoint"):
                    found.append(item.extend.progress.checkpoint)
            elif item.handle == handle:
                return found
    raise AssertionError("the delivery was not settled")


async def test_the_handler_gets_what_was_left(server: ScriptedServer, working: Working) -> None:
    async def handle(job: Job) -> object:
        return job.checkpoint

    async with working(handle):
        stream = await server.opened()
        await stream.deliver(delivery("h-1", checkpoint='{"page": 7}'))
        assert (await server.settled("h-1")).complete.output == '{"page":7}'
        await stream.deliver(delivery("h-2"))
        assert (await server.settled("h-2")).complete == pb.Complete()


@pytest.mark.parametrize("run_in", ["loop", "thread", "process"])
async def test_a_checkpoint_arrives_before_the_failure_that_comes_right_after_it(
    server: ScriptedServer, working: Working, run_in: str
) -> None:
    async def in_loop(job: Job) -> None:
        await job.progress(0.1, checkpoint={"page": 1})
        await job.progress(0.2, checkpoint={"page": 2})
        await job.progress(0.3, "and on")
        raise ValueError("page 3")

    def in_thread(job: Job) -> None:
        asyncio.run(in_loop(job))

    handler = {"loop": in_loop, "thread": in_thread, "process": in_process}[run_in]
    async with working(handler, run_in=run_in):
        stream = await server.opened()
        for handle in ("h-1", "h-2"):
            await stream.deliver(delivery(handle, '{"do": "leave"}'))
            assert (await server.settled(handle)).fail.message == "page 3"
            assert left(server, handle)[-1] == '{"page":2}'


async def test_what_is_given_back_when_the_worker_stops_keeps_its_checkpoint(
    server: ScriptedServer, working: Working
) -> None:
    begun = asyncio.Event()

    async def handle(job: Job) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            job.report(0.5, checkpoint=[1, 2])

    async with working(handle):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await begun.wait()
    assert (await server.settled("h-1")).HasField("release")
    assert left(server, "h-1") == ["[1,2]"]


@pytest.mark.parametrize("run_in", ["loop", "thread", "process"])
async def test_each_job_of_a_batch_has_its_own(server: ScriptedServer, run_in: str) -> None:
    worker = Worker(server.address, name="tester")
    register = worker.batch_handler("q", size=2, wait=60, run_in=run_in)  # type: ignore[arg-type]
    register(leave_async if run_in == "loop" else leave)
    async with worker:
        stream = await server.opened()
        await stream.deliver(delivery("h-1", checkpoint="1"), delivery("h-2", checkpoint="2"))
        for handle in ("h-1", "h-2"):
            assert (await server.settled(handle)).HasField("fail")
        worker.stop(now=True)
    assert (left(server, "h-1"), left(server, "h-2")) == (["11"], ["12"])


def leave(jobs: list[BatchJob]) -> None:
    for job in jobs:
        job.report(0.5, checkpoint=job.checkpoint + 10)
    jobs[0].fail(ValueError("not yet"))
    raise ValueError("the rest neither")


async def leave_async(jobs: list[BatchJob]) -> None:
    leave(jobs)


async def test_a_checkpoint_that_is_too_large_or_no_json_is_the_handlers_mistake(
    server: ScriptedServer, working: Working
) -> None:
    async def handle(job: Job) -> None:
        await job.progress(0.5, checkpoint="x" * (64 * 1024 - 2))
        with pytest.raises(ValueError, match="not JSON"):
            await job.progress(0.5, checkpoint={1})
        await job.progress(0.5, checkpoint="x" * (64 * 1024 - 1))

    async with working(handle):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        fail = (await server.settled("h-1")).fail
    assert "at most 65536 are taken" in fail.message
    assert [len(json.loads(text)) for text in left(server, "h-1")] == [64 * 1024 - 2]


async def test_a_word_without_checkpoint_does_not_take_back_one_that_waits(
    server: ScriptedServer, working: Working
) -> None:
    """While an Ack is on its way, both words wait for the next one."""
    go, said = asyncio.Event(), asyncio.Event()

    async def answer(request: pb.AckRequest) -> pb.AckResponse:
        if request.items:
            await go.wait()
        return all_applied(request)

    async def handle(job: Job) -> None:
        await job.progress(0.1)
        await asyncio.sleep(2 * INTERVAL)
        await job.progress(0.2, checkpoint="kept")
        await asyncio.sleep(2 * INTERVAL)
        await job.progress(0.3)
        await asyncio.sleep(2 * INTERVAL)
        said.set()
        raise ValueError("now")

    server.answer_ack = answer
    async with working(handle):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await said.wait()
        go.set()
        await server.settled("h-1")
    assert left(server, "h-1") == ['"kept"']
