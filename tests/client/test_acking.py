"""Acks: grouped, repeated until answered, and no harm from a bad one. Progress and extensions on the way."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from jobwire import Job
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.conftest import Working
from tests.client.scripted_server import CUT, PATIENCE, RefusalError, ScriptedServer, all_applied, delivery


class Gate:
    """Answers Acks with statements only after the test has opened it; others pass."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()

    async def __call__(self, request: pb.AckRequest) -> pb.AckResponse:
        if request.items:
            await self._opened.wait()
        return all_applied(request)

    def open(self) -> None:
        self._opened.set()


class Failing:
    """Refuses the first Acks with statements, then answers."""

    def __init__(self, *refusals: RefusalError) -> None:
        self._refusals = list(refusals)

    def __call__(self, request: pb.AckRequest) -> pb.AckResponse:
        if request.items and self._refusals:
            raise self._refusals.pop(0)
        return all_applied(request)


async def at_once(job: Job) -> object:
    return job.data


def with_items(server: ScriptedServer) -> list[list[str]]:
    return [[item.handle for item in ack.items] for ack in server.acks if ack.items]


async def test_what_ends_during_a_call_goes_into_the_next(server: ScriptedServer, working: Working) -> None:
    server.answer_ack = gate = Gate()
    async with working(at_once, concurrency=100):
        stream = await server.opened()
        await stream.deliver(delivery("h-0"))
        await server.settled("h-0")
        handles = [f"h-{number}" for number in range(1, 41)]
        await stream.deliver(*map(delivery, handles[:20]))
        await stream.deliver(*map(delivery, handles[20:]))
        # The answer to this heartbeat proves that the deliveries were read; their handlers end at once.
        sequence = await stream.heartbeat()
        await server.ack(lambda ack: not ack.items and ack.last_sequence == sequence)
        gate.open()
        await server.settled("h-40")
    assert with_items(server) == [["h-0"], handles]


async def test_an_unanswered_ack_is_repeated_and_survives_the_resume(server: ScriptedServer, working: Working) -> None:
    unavailable = RefusalError(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", retry_after=0.01)
    server.answer_ack = Failing(unavailable, CUT, RefusalError(grpc.StatusCode.DEADLINE_EXCEEDED), unavailable)
    async with working(at_once):
        stream = await server.opened()
        await stream.deliver(delivery("h-1", "7"))
        await server.settled("h-1")
        stream.end(CUT)
        again = await server.opened()
        assert list(again.request.resume.held) in ([], ["h-1"])
        await server.ack(lambda ack: bool(ack.items) and with_items(server).count(["h-1"]) == 5)
    assert with_items(server) == [["h-1"]] * 5
    assert {ack.items[0].complete.output for ack in server.acks if ack.items} == {"7"}


async def test_a_delivery_is_held_until_its_ack_is_answered(server: ScriptedServer, working: Working) -> None:
    server.answer_ack = gate = Gate()
    async with working(at_once):
        first = await server.opened()
        await first.deliver(delivery("h-1"))
        await server.settled("h-1")
        first.end(CUT)
        second = await server.stream()
        assert list(second.request.resume.held) == ["h-1"]
        gate.open()
        # The server has applied it before the resume, so it lists the delivery as lost. That is no reason to forget it.
        await second.open(lost=["h-1"])
        second.end(CUT)
        third = await server.stream()
        assert list(third.request.resume.held) == []


async def test_a_resume_names_what_runs_before_what_waits_for_an_answer(
    server: ScriptedServer, working: Working
) -> None:
    server.answer_ack = gate = Gate()
    let_go = asyncio.Event()
    begun: asyncio.Queue[str] = asyncio.Queue()

    async def handle(job: Job) -> None:
        begun.put_nowait(job.id)
        if job.data:
            await let_go.wait()

    async with working(handle, concurrency=1000):
        stream = await server.opened()
        for deliveries in (
            [delivery(f"a-{number}") for number in range(600)],
            [delivery(f"z-{number}", "true") for number in range(600)],
        ):
            await stream.deliver(*deliveries)
            async with asyncio.timeout(PATIENCE):
                for _ in deliveries:
                    await begun.get()
        stream.end(CUT)
        held = set((await server.stream()).request.resume.held)
        let_go.set()
        gate.open()
    assert len(held) == 1000
    assert {f"z-{number}" for number in range(600)} < held


async def test_acks_outlive_their_session(server: ScriptedServer, working: Working) -> None:
    server.answer_ack = gate = Gate()
    async with working(at_once):
        first = await server.opened("s-1")
        await first.deliver(delivery("h-1"))
        await server.settled("h-1")
        first.end(RefusalError(grpc.StatusCode.NOT_FOUND, "SESSION_LOST"))
        second = await server.opened("s-2")
        gate.open()
        await second.deliver(delivery("h-2"))
        await server.settled("h-2")


@pytest.mark.parametrize("status", [pb.ACK_STATUS_LEASE_LOST, pb.ACK_STATUS_NOT_FOUND, pb.ACK_STATUS_CANCELLED])
async def test_every_status_is_an_answer(
    server: ScriptedServer, working: Working, status: pb.AckStatus.ValueType
) -> None:
    server.answer_ack = lambda request: pb.AckResponse(
        results=[pb.AckResult(status=status) for _ in request.items], session_alive=True
    )
    async with working(at_once):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await server.settled("h-1")
        await stream.deliver(delivery("h-2"))
        await server.settled("h-2")
        stream.end(CUT)
        assert "h-1" not in (await server.stream()).request.resume.held
    assert with_items(server) == [["h-1"], ["h-2"]]


async def test_every_heartbeat_is_answered_even_while_an_ack_hangs(server: ScriptedServer, working: Working) -> None:
    server.answer_ack = gate = Gate()
    async with working(at_once):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        await server.settled("h-1")
        for _ in range(3):
            sequence = await stream.heartbeat()
            ack = await server.ack(lambda ack, sequence=sequence: ack.last_sequence == sequence)  # type: ignore[misc]
            assert ack.session_id == "s-1"
            assert not ack.items
        gate.open()


async def test_a_refused_statement_harms_no_other(server: ScriptedServer, working: Working) -> None:
    gate = Gate()

    async def refuse(request: pb.AckRequest) -> pb.AckResponse:
        response = await gate(request)
        if any(item.complete.output == '"bad"' for item in request.items):
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "DATA_TOO_LARGE", "output: 70000 bytes, limit 65536")
        return response

    server.answer_ack = refuse
    async with working(at_once, concurrency=50):
        stream = await server.opened()
        await stream.deliver(delivery("h-0"))
        await server.settled("h-0")
        handles = [f"h-{number}" for number in range(1, 12)]
        await stream.deliver(*(delivery(handle, '"bad"' if handle == "h-5" else "1") for handle in handles))
        sequence = await stream.heartbeat()
        await server.ack(lambda ack: not ack.items and ack.last_sequence == sequence)
        gate.open()
        ack = await server.ack(lambda ack: any(item.WhichOneof("outcome") == "fail" for item in ack.items))
        (item,) = ack.items
        assert item.handle == "h-5"
        assert item.fail.permanent
        assert "output: 70000 bytes, limit 65536" in item.fail.message
        await stream.deliver(delivery("last"))
        await server.settled("last")
    accepted = [
        item.handle
        for ack in server.acks
        if not any(item.complete.output == '"bad"' for item in ack.items)
        for item in ack.items
    ]
    assert sorted(accepted) == sorted(["h-0", *handles, "last"])


async def test_large_results_are_split_over_calls(server: ScriptedServer, working: Working) -> None:
    server.answer_ack = gate = Gate()

    async def answer(job: Job) -> object:
        return "ä" * job.data if job.data else None

    async with working(answer, concurrency=50):
        stream = await server.opened()
        await stream.deliver(delivery("h-0"))
        await server.settled("h-0")
        handles = [f"h-{number}" for number in range(1, 41)]
        # Every other result is 400,000 bytes, of which seven fit into a call; the others are nothing.
        await stream.deliver(*(delivery(h, "0" if number % 2 else "200000") for number, h in enumerate(handles)))
        sequence = await stream.heartbeat()
        await server.ack(lambda ack: not ack.items and ack.last_sequence == sequence)
        gate.open()
        await server.settled("h-40")
    assert with_items(server) == [["h-0"], handles[:14], handles[14:28], handles[28:]]
    outputs = {item.handle: len(item.complete.output) for ack in server.acks for item in ack.items}
    assert list(outputs.values()) == [0, *[200_002, 0] * 20]


async def test_a_locked_job_harms_no_other(
    server: ScriptedServer, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds a lock on it: its statement is repeated until it is applied, the others are not kept waiting."""
    monkeypatch.setattr("jobwire.acking._LOCKED_PAUSE", 0.1)
    gate, locked, refused = Gate(), True, 0

    async def refuse(request: pb.AckRequest) -> pb.AckResponse:
        nonlocal refused
        response = await gate(request)
        if locked and any(item.handle == "h-5" for item in request.items):
            refused += 1
            raise RefusalError(grpc.StatusCode.ABORTED, "LOCK_TIMEOUT")
        return response

    server.answer_ack = refuse
    async with working(at_once, concurrency=50):
        stream = await server.opened()
        await stream.deliver(delivery("h-0"))
        await server.settled("h-0")
        await stream.deliver(*(delivery(f"h-{number}") for number in range(1, 12)))
        sequence = await stream.heartbeat()
        await server.ack(lambda ack: not ack.items and ack.last_sequence == sequence)
        gate.open()
        async with asyncio.timeout(PATIENCE):
            for number in range(12, 30):
                await stream.deliver(delivery(f"h-{number}"))
                await server.settled(f"h-{number}")
                await asyncio.sleep(0.02)
            while refused < 8:
                await asyncio.sleep(0.01)
            locked = False
            while with_items(server)[-1] != ["h-5"]:
                await asyncio.sleep(0.01)
            await stream.deliver(delivery("last"))
            await server.settled("last")
    accepted = [ids for ids in with_items(server) if "h-5" not in ids]
    assert sorted(handle for ids in accepted for handle in ids) == sorted(
        [f"h-{number}" for number in range(30) if number != 5] + ["last"]
    )
    # Once it is known which it is, it goes alone.
    assert [ids for ids in with_items(server) if "h-5" in ids][-4:] == [["h-5"]] * 4


async def test_progress_is_sent_at_a_bearable_pace_and_the_latest_wins(
    server: ScriptedServer, working: Working
) -> None:
    reported, go_on = asyncio.Event(), asyncio.Event()

    async def chatty(job: Job) -> None:
        for step in range(1000):
            await job.progress(step / 1000, f"step {step}")
        await job.progress(7.5, "x" * 5000)
        reported.set()
        await go_on.wait()

    async with working(chatty):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        async with asyncio.timeout(PATIENCE):
            await reported.wait()
        last = await server.ack(lambda ack: any(item.extend.progress.fraction == 1 for item in ack.items))
        go_on.set()
        await server.settled("h-1")
    assert last.items[0].extend.progress.note == "x" * 1000
    assert not last.items[0].extend.HasField("expire_in")
    reports = [item for ack in server.acks for item in ack.items if item.HasField("extend")]
    assert len(reports) < 100


async def test_an_extension_returns_when_it_is_answered(server: ScriptedServer, working: Working) -> None:
    server.answer_ack = gate = Gate()
    extended = asyncio.Event()

    async def patient(job: Job) -> None:
        await job.extend(600)
        extended.set()

    async with working(patient):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        ack = await server.ack(lambda ack: bool(ack.items))
        assert ack.items[0].extend.expire_in.seconds == 600
        assert not ack.items[0].extend.HasField("progress")
        assert not extended.is_set()
        gate.open()
        await server.settled("h-1")
        assert extended.is_set()


async def test_what_is_extended_again_while_a_group_is_taken_apart_is_said_again(
    server: ScriptedServer, working: Working
) -> None:
    gate, go_on, said = Gate(), asyncio.Event(), asyncio.Event()

    async def reply(request: pb.AckRequest) -> pb.AckResponse:
        if len(request.items) > 1:
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        return await gate(request) if request.items and request.items[0].handle == "h-2" else all_applied(request)

    server.answer_ack = reply

    async def handle(job: Job) -> None:
        if job.data:
            job.extend(600)
            await go_on.wait()
            answered = job.extend(1200)
            said.set()
            await answered

    async with working(handle, concurrency=2):
        stream = await server.opened()
        await stream.deliver(delivery("h-1", "1"), delivery("h-2", "0"))
        await server.ack(lambda ack: [item.handle for item in ack.items] == ["h-2"])
        go_on.set()
        async with asyncio.timeout(PATIENCE):
            await said.wait()
        gate.open()
        await server.settled("h-1")
    spans = [item.extend.expire_in.seconds for ack in server.acks for item in ack.items if item.HasField("extend")]
    assert spans[-1] == 1200


@pytest.mark.parametrize(
    "answer",
    [
        pb.AckResult(status=pb.ACK_STATUS_LEASE_LOST),
        pb.AckResult(status=pb.ACK_STATUS_APPLIED, cancel=pb.CANCEL_REASON_REQUESTED),
    ],
    ids=["lease lost", "cancel asked"],
)
async def test_the_answer_to_an_extension_may_stop_the_handler(
    server: ScriptedServer, working: Working, answer: pb.AckResult
) -> None:
    def reply(request: pb.AckRequest) -> pb.AckResponse:
        response = all_applied(request)
        if any(item.HasField("extend") for item in request.items):
            response.results[0].CopyFrom(answer)
        return response

    server.answer_ack = reply

    async def endless(job: Job) -> None:
        await job.extend(600)
        await asyncio.Event().wait()

    async with working(endless):
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        # Settled all the same: that is what returns the credit.
        assert (await server.settled("h-1")).WhichOneof("outcome") == "release"
