"""What handlers may do, and what becomes of their jobs: async ones and blocking ones in threads."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobwire import FailForGood, Job, JobCancelled, ReleaseJob, RetryIn, Worker
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.conftest import Working
from tests.client.scripted_server import PATIENCE, ScriptedServer, delivery, seconds


class BadTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class DamagedFile(FailForGood):
    pass


async def raise_in_group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail_for_good())


async def fail_for_good() -> None:
    raise DamagedFile("the file is damaged")


def raising(kind: type[BaseException], *arguments: object) -> Callable[[], Coroutine[Any, Any, None]]:
    async def run() -> None:
        raise kind(*arguments)

    return run


async def too_deep() -> object:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


def returning(result: object) -> Callable[[], Coroutine[Any, Any, object]]:
    async def run() -> object:
        return result

    return run


BROKEN_TEXT = pb.Fail(type="ValueError", message="half ? \ufffd" + "m" * 1992)

FAILURES = [
    (raising(ValueError, "no such sheet"), pb.Fail(type="ValueError", message="no such sheet")),
    (raising(KeyError), pb.Fail(type="KeyError", message="KeyError")),
    (raising(SystemExit, 3), pb.Fail(type="SystemExit", message="3")),
    (raising(KeyboardInterrupt), pb.Fail(type="KeyboardInterrupt", message="KeyboardInterrupt")),
    (raising(GeneratorExit), pb.Fail(type="GeneratorExit", message="GeneratorExit")),
    (raising(asyncio.CancelledError), pb.Fail(type="CancelledError", message="CancelledError")),
    (raising(JobCancelled), pb.Fail(type="JobCancelled", message="JobCancelled")),
    (raising(BadTextError), pb.Fail(type="BadTextError", message="BadTextError (its text cannot be shown)")),
    (
        raising(ValueError, "half \ud800 \0" + "m" * 3000),
        BROKEN_TEXT,
    ),
    (raising(FailForGood, "never"), pb.Fail(type="FailForGood", message="never", permanent=True)),
    (raise_in_group, pb.Fail(type="DamagedFile", message="the file is damaged", permanent=True)),
    (returning({1, 2}), pb.Fail(type="BadResult", message="set is not JSON", permanent=True)),
    (returning(float("nan")), pb.Fail(type="BadResult", message="no NaN", permanent=True)),
    (returning("\ud800"), pb.Fail(type="BadResult", message="half a surrogate pair", permanent=True)),
    (returning("x" * 600_000), pb.Fail(type="BadResult", message="store the content elsewhere", permanent=True)),
    (too_deep, pb.Fail(type="BadResult", message="nested too deeply", permanent=True)),
]


@pytest.mark.parametrize(("body", "expected"), FAILURES, ids=[expected.message[:24] for _, expected in FAILURES])
@pytest.mark.parametrize("run_in", ["loop", "thread"])
async def test_a_handler_that_fails_fails_its_job_and_nothing_else(
    server: ScriptedServer,
    working: Working,
    body: Callable[[], Coroutine[Any, Any, object]],
    expected: pb.Fail,
    run_in: str,
) -> None:
    async def in_loop(job: Job) -> object:
        return await body() if job.data else "fine"

    def in_thread(job: Job) -> object:
        if not job.data:
            return "fine"
        coroutine = body()
        if body is raise_in_group:
            coroutine.close()
            raise DamagedFile("the file is damaged")
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("no body awaits anything")

    async with working(in_loop if run_in == "loop" else in_thread, run_in=run_in):
        stream = await server.opened()
        await stream.deliver(delivery("h-1", "true"))
        fail = (await server.settled("h-1")).fail
        await stream.deliver(delivery("h-2", "false"))
        assert (await server.settled("h-2")).complete.output == '"fine"'
    assert fail.type == expected.type
    assert fail.permanent == expected.permanent
    if expected.type == "BadResult":
        assert fail.message.startswith("the handler's result cannot be stored: ")
        assert {"set is not JSON": "type set", "no NaN": "NaN"}.get(expected.message, expected.message) in fail.message
    else:
        assert fail.message == expected.message
        assert "test_handlers.py" in fail.trace or len(fail.trace) > 3000
        assert "running.py" not in fail.trace


async def test_the_trace_of_a_failure_keeps_its_end(server: ScriptedServer, working: Working) -> None:
    async def handle(job: Job) -> None:
        raise ValueError("ä" * 9000 + " the end")

    async with working(handle):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        fail = (await server.settled("h-1")).fail
    assert fail.trace.endswith("ä the end\n")
    assert 8000 < len(fail.trace.encode()) <= 8192


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        (
            RetryIn(90, "rate limit"),
            pb.AckItem(fail=pb.Fail(type="RetryIn", message="rate limit", retry_in=seconds(90))),
        ),
        (ReleaseJob(), pb.AckItem(release=pb.Release())),
        (ReleaseJob(delay=2.5), pb.AckItem(release=pb.Release(delay=seconds(2.5)))),
    ],
    ids=["retry", "release", "release later"],
)
async def test_a_handler_may_ask_for_another_run(
    server: ScriptedServer, working: Working, signal: Exception, expected: pb.AckItem
) -> None:
    async def handle(job: Job) -> None:
        raise signal

    async with working(handle):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        item = await server.settled("h-1")
    item.handle = ""
    if item.HasField("fail"):
        item.fail.ClearField("trace")
    assert item == expected


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (pb.CANCEL_REASON_REQUESTED, "release"),
        (pb.CANCEL_REASON_LEASE_LOST, "release"),
        (pb.CANCEL_REASON_EXPIRED, "fail"),
    ],
    ids=["requested", "lease lost", "expired"],
)
@pytest.mark.parametrize("run_in", ["loop", "thread"])
async def test_a_cancelled_handler_is_stopped_and_settled(
    server: ScriptedServer, working: Working, reason: pb.CancelReason.ValueType, outcome: str, run_in: str
) -> None:
    async def in_loop(job: Job) -> None:
        await job.extend(60)
        await asyncio.Event().wait()

    def in_thread(job: Job) -> None:
        job.extend(60)
        pause = threading.Event()
        while not pause.wait(0.01):
            job.check()

    async with working(in_loop if run_in == "loop" else in_thread, run_in=run_in):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await server.ack(lambda ack: bool(ack.items))
        await stream.cancel("h-1", reason)
        item = await server.settled("h-1")
    assert item.WhichOneof("outcome") == outcome
    if outcome == "fail":
        assert item.fail.type == "EXPIRED"
        assert not item.fail.permanent


async def test_a_handler_that_completes_although_cancelled_has_completed(
    server: ScriptedServer, working: Working
) -> None:
    started = asyncio.Event()

    async def handle(job: Job) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert job.cancelled
        return "saved what there was"

    async with working(handle):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        async with asyncio.timeout(PATIENCE):
            await started.wait()
        await stream.cancel("h-1")
        assert (await server.settled("h-1")).complete.output == '"saved what there was"'


async def test_a_job_cancelled_before_its_first_step_is_given_back(server: ScriptedServer, working: Working) -> None:
    async def handle(job: Job) -> None:
        await asyncio.Event().wait()

    async with working(handle):
        stream = await server.opened()
        # Both events are in the buffer before the handler's task has run.
        await stream.deliver(delivery("h-1"))
        await stream.cancel("h-1")
        assert (await server.settled("h-1")).WhichOneof("outcome") == "release"


async def test_blocking_handlers_run_side_by_side_and_report_from_their_threads(
    server: ScriptedServer, working: Working
) -> None:
    together = threading.Barrier(3)

    def handle(job: Job) -> str:
        for step in range(1, 1001):
            job.report(step / 1000, job.id)
        together.wait(PATIENCE)
        # Not before its last word has gone out.
        reported.wait(PATIENCE)
        return threading.current_thread().name

    reported = threading.Event()
    async with working(handle, concurrency=3, run_in="thread"):
        stream = await server.opened()
        handles = ["h-1", "h-2", "h-3"]
        await stream.deliver(*map(delivery, handles))
        for handle_ in handles:
            await server.ack(
                lambda ack, handle_=handle_: any(  # type: ignore[misc]
                    item.handle == handle_ and item.extend.progress.fraction == 1 for item in ack.items
                )
            )
        reported.set()
        outputs = {(await server.settled(handle_)).complete.output for handle_ in handles}
    assert outputs == {f'"jobwire q job-of-{handle_}"' for handle_ in handles}


async def test_a_signal_that_was_not_set_up_still_says_what_it_can(server: ScriptedServer, working: Working) -> None:
    class SlowDown(RetryIn):
        def __init__(self) -> None:
            pass

    async def handle(job: Job) -> None:
        raise SlowDown

    async with working(handle):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        fail = (await server.settled("h-1")).fail
    assert (fail.type, fail.HasField("retry_in"), fail.retry_in.ToSeconds()) == ("SlowDown", True, 0)


@pytest.mark.parametrize(("pause", "kept"), [("30", 30), (timedelta(seconds=2), 2), ("soon", None), (10**400, None)])
async def test_a_signal_that_names_no_pause_fails_its_job_and_nothing_else(
    server: ScriptedServer, working: Working, pause: object, kept: int | None
) -> None:
    class SlowDown(RetryIn):
        def __init__(self) -> None:
            self.seconds = pause  # type: ignore[assignment]

    class Busy(ReleaseJob):
        delay = pause  # type: ignore[assignment]

        def __init__(self) -> None:
            pass

    async def handle(job: Job) -> None:
        raise SlowDown if job.data == "slow" else Busy

    async with working(handle, concurrency=2):
        stream = await server.opened()
        await stream.deliver(delivery("h-1", '"slow"'), delivery("h-2"))
        slow, busy = await server.settled("h-1"), await server.settled("h-2")
    if kept is None:
        assert (slow.fail.type, slow.fail.HasField("retry_in"), slow.fail.permanent) == ("SlowDown", False, False)
        assert (busy.fail.type, "names no pause" in busy.fail.message) == ("Busy", True)
    else:
        assert (slow.fail.retry_in, busy.release.delay) == (seconds(kept), seconds(kept))


@pytest.mark.parametrize("pause", [-1, float("nan"), float("inf"), 8 * 24 * 3600])
def test_a_pause_that_makes_no_sense_is_refused_where_it_is_said(pause: float) -> None:
    with pytest.raises(ValueError, match="0 s to 7 days"):
        RetryIn(pause)
    with pytest.raises(ValueError, match="0 s to 7 days"):
        ReleaseJob(pause)


async def test_a_job_can_be_made_by_hand_to_try_out_a_handler() -> None:
    async def handle(job: Job) -> int:
        await job.progress(0.5, "half")
        await job.extend(60)
        job.check()
        return int(job.data["n"]) + job.attempt

    assert await handle(Job(data={"n": 1})) == 2
    with pytest.raises(ValueError, match="1 s to 7 days"):
        Job().extend(0.5)


def test_registrations_that_make_no_sense_are_refused() -> None:
    worker = Worker("127.0.0.1:1")

    async def asynchronous(job: Job) -> None: ...

    def blocking(job: Job) -> None: ...

    with pytest.raises(TypeError, match="is not async"):
        worker.handler("a")(blocking)
    with pytest.raises(TypeError, match="is async"):
        worker.handler("a", run_in="thread")(asynchronous)
    with pytest.raises(ValueError, match="between 1 and 1000"):
        worker.handler("a", concurrency=0)
    with pytest.raises(ValueError, match="loop, thread, process"):
        worker.handler("a", run_in="cloud")  # type: ignore[arg-type]
    worker.handler("a")(asynchronous)
    with pytest.raises(ValueError, match="has a handler already"):
        worker.handler("a")


async def test_a_delivered_job_is_like_one_made_by_hand(server: ScriptedServer, working: Working) -> None:
    seen: list[Job] = []

    async def handle(job: Job) -> None:
        job.data["seen"] = True  # what was decoded once stays
        seen.append(job)

    async with working(handle):
        stream = await server.opened()
        await stream.deliver(delivery("a", '{"n": 1}', headers={"h": "1"}, priority=3, retry_count=1))
        await server.settled("a")
    (job,) = seen
    by_hand = Job(
        data={"n": 1, "seen": True},
        queue="q",
        id="job-of-a",
        headers={"h": "1"},
        priority=3,
        retry_count=1,
        retry_limit=2,
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    assert repr(job) == repr(by_hand)
    assert dataclasses.replace(job, attempt=2).attempt == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.data = None  # type: ignore[misc]
