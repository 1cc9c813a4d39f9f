"""Handlers of batches: gathered together, settled one by one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator

import pytest

from jobwire import BatchJob, Job, Worker
from jobwire.v1 import queue_service_pb2 as pb
from tests.client import batch_handlers
from tests.client.scripted_server import PATIENCE, ScriptedServer, Stream, delivery, seconds

WAYS = pytest.mark.parametrize("run_in", ["loop", "thread", "process"])


@contextlib.asynccontextmanager
async def batches(
    server: ScriptedServer, run_in: str, handler: object = None, **terms: object
) -> AsyncIterator[Stream]:
    """A worker with a batch handler on queue `q`; gives its stream."""

    async def in_loop(jobs: list[BatchJob]) -> object:
        if any(job.data["do"].startswith("until") for job in jobs):
            return await until_told(jobs)
        return batch_handlers.handle(jobs)

    worker = Worker(server.address, name="tester")
    register = worker.batch_handler("q", run_in=run_in, **{"size": 3, "wait": 60} | terms)  # type: ignore[arg-type]
    register(handler or (in_loop if run_in == "loop" else batch_handlers.handle))  # type: ignore[type-var]
    async with worker:
        try:
            yield await server.opened()
        finally:
            worker.stop(now=True)


async def until_told(jobs: list[BatchJob]) -> None:
    for job in jobs:
        await job.progress(0.5)
        if job.data["do"] == "complete":
            job.complete()
    while not any(job.cancelled for job in jobs):
        await asyncio.sleep(0.01)
    if any(job.data["do"] == "until all are told" for job in jobs):
        await asyncio.Event().wait()


def saying(handle: str, do: str, then: str = "") -> pb.Delivery:
    return delivery(handle, json.dumps({"do": do, "then": then}))


async def reported(server: ScriptedServer, *handles: str) -> None:
    for handle in handles:
        await server.ack(
            lambda ack, handle=handle: any(
                item.handle == handle and item.extend.progress.fraction == 0.5 for item in ack.items
            )
        )


@WAYS
async def test_each_job_is_settled_on_its_own(server: ScriptedServer, run_in: str) -> None:
    async with batches(server, run_in, size=5, concurrency=7) as stream:
        await stream.deliver(
            *(saying("h-1", "complete"), saying("h-2", "fail"), saying("h-3", "never")),
            *(saying("h-4", "release"), saying("h-5", "nothing")),
        )
        first = json.loads((await server.settled("h-1")).complete.output)
        failed, never = [(await server.settled(handle)).fail for handle in ("h-2", "h-3")]
        released = (await server.settled("h-4")).release
        assert (await server.settled("h-5")).complete == pb.Complete()
    assert first[0] == 5 and (first[1] == os.getpid()) is (run_in != "process")
    assert (failed.type, failed.message, failed.permanent) == ("ValueError", "not this one", False)
    assert (never.type, never.permanent) == ("FailForGood", True)
    assert released == pb.Release(delay=seconds(2))


ENDINGS = [("raise", "FailForGood", True), ("return", "BadResult", True), ("exit", "ProcessDied", False)]


@pytest.mark.parametrize(
    ("run_in", "then", "type_", "permanent"),
    [("process", *ending) for ending in ENDINGS] + [(way, *end) for way in ("loop", "thread") for end in ENDINGS[:2]],
)
async def test_what_ends_the_handler_is_said_of_the_jobs_that_it_has_not_settled(
    server: ScriptedServer, run_in: str, then: str, type_: str, permanent: bool
) -> None:
    async with batches(server, run_in) as stream:
        await stream.deliver(saying("h-1", "complete", then), saying("h-2", "nothing"), saying("h-3", "fail"))
        assert (await server.settled("h-1")).HasField("complete")
        rest = (await server.settled("h-2")).fail
        assert (await server.settled("h-3")).fail.type == "ValueError"
    assert (rest.type, rest.permanent) == (type_, permanent)


@WAYS
async def test_one_of_a_batch_is_cancelled_and_never_completed(server: ScriptedServer, run_in: str) -> None:
    async with batches(server, run_in) as stream:
        await stream.deliver(saying("h-1", "until told"), saying("h-2", "nothing"), saying("h-3", "report"))
        await reported(server, "h-1")
        await stream.cancel("h-1")
        assert (await server.settled("h-1")).HasField("release")
        assert (await server.settled("h-2")).HasField("complete")
        assert (await server.settled("h-3")).HasField("complete")


@WAYS
async def test_a_handler_stops_when_all_that_is_left_to_it_is_to_stop(server: ScriptedServer, run_in: str) -> None:
    async with batches(server, run_in, size=2) as stream:
        await stream.deliver(
            saying("h-1", "complete"), saying("h-2", "until all are told" if run_in == "loop" else "until told")
        )
        assert (await server.settled("h-1")).HasField("complete")
        await reported(server, "h-2")
        await stream.cancel("h-2", pb.CANCEL_REASON_EXPIRED)
        assert (await server.settled("h-2")).fail.type == "EXPIRED"


@WAYS
async def test_when_the_worker_stops_all_that_is_not_settled_is_given_back(server: ScriptedServer, run_in: str) -> None:
    async with batches(server, run_in) as stream:
        await stream.deliver(*(saying(f"h-{n}", "until all are told") for n in range(3)))
        await reported(server, "h-0")
    assert all([(await server.settled(f"h-{n}")).HasField("release") for n in range(3)])


@WAYS
async def test_progress_is_that_of_each_job(server: ScriptedServer, run_in: str) -> None:
    async with batches(server, run_in) as stream:
        await stream.deliver(saying("h-1", "report"), saying("h-2", "report"), saying("h-3", "until told"))
        await reported(server, "h-1", "h-2", "h-3")
        notes = {
            item.extend.progress.note
            for ack in server.acks
            for item in ack.items
            if item.HasField("extend") and item.extend.HasField("progress")
        }
        if run_in != "loop":
            assert {"job-of-h-1 is half done", "job-of-h-2 is half done"} <= notes
        await stream.cancel("h-3")
        await server.settled("h-3")


async def test_a_cancelled_handler_of_batches_may_clean_up(server: ScriptedServer) -> None:
    """Its jobs are told to stop one by one; that must not cancel it once for each."""
    cleaned = asyncio.Event()

    async def handle(jobs: list[BatchJob]) -> None:
        await jobs[0].progress(0.5)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            cleaned.set()

    async with batches(server, "loop", handle) as stream:
        await stream.deliver(*(saying(f"h-{n}", "nothing") for n in range(3)))
        await reported(server, "h-0")
    assert cleaned.is_set()


async def test_a_batch_does_not_wait_for_ever_and_not_when_full(server: ScriptedServer) -> None:
    sizes: list[int] = []

    async def handle(jobs: list[BatchJob]) -> None:
        sizes.append(len(jobs))

    async with batches(server, "loop", handle, wait=0.05, concurrency=10) as stream:
        await stream.deliver(*(saying(f"h-{n}", "nothing") for n in range(5)))
        for n in range(5):
            await server.settled(f"h-{n}")
    assert sizes == [3, 2]


async def test_a_job_that_is_cancelled_while_a_batch_gathers_is_left_out(server: ScriptedServer) -> None:
    sizes: list[int] = []

    async def handle(jobs: list[BatchJob]) -> None:
        sizes.append(len(jobs))

    async with batches(server, "loop", handle) as stream:
        await stream.deliver(saying("h-1", "nothing"), saying("h-2", "nothing"))
        await stream.cancel("h-1")
        assert (await server.settled("h-1")).HasField("release")
        await stream.deliver(saying("h-3", "nothing"))
        await asyncio.sleep(0)
        await stream.deliver(saying("h-4", "nothing"))
        for n in (2, 3, 4):
            assert (await server.settled(f"h-{n}")).HasField("complete")
    assert sizes == [3]


async def test_the_first_word_on_a_job_counts(server: ScriptedServer) -> None:
    async def handle(jobs: list[BatchJob]) -> None:
        jobs[0].complete({"rows": 3})
        assert jobs[0].settled and not jobs[1].settled
        jobs[0].fail(ValueError("too late"))
        jobs[1].complete({1, 2})

    async with batches(server, "loop", handle, size=2) as stream:
        await stream.deliver(saying("h-1", "nothing"), saying("h-2", "nothing"))
        assert (await server.settled("h-1")).complete.output == '{"rows":3}'
        assert (await server.settled("h-2")).fail.type == "BadResult"


async def test_a_handler_that_has_settled_everything_does_not_hold_up_the_end(server: ScriptedServer) -> None:
    async def handle(jobs: list[BatchJob]) -> None:
        for job in jobs:
            job.complete()
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE), batches(server, "loop", handle) as stream:
        await stream.deliver(*(saying(f"h-{n}", "nothing") for n in range(3)))
        for n in range(3):
            await server.settled(f"h-{n}")


@pytest.mark.parametrize("terms", [{"size": 0}, {"size": 1001}, {"size": 2, "wait": -1}, {"size": 2, "concurrency": 0}])
def test_a_registration_that_makes_no_sense_is_refused(terms: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be between"):
        Worker("127.0.0.1:1").batch_handler("q", **terms)


def test_a_batch_made_by_hand_tries_out_a_handler() -> None:
    jobs = [BatchJob(data={"do": "fail", "then": ""}), BatchJob(data={"do": "nothing"})]
    batch_handlers.handle(jobs)
    assert [job.settled for job in jobs] == [True, False]
    assert isinstance(jobs[0], Job) and repr(jobs[0]).startswith("BatchJob(")
