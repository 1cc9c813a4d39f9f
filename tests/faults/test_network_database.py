"""The network between server and database goes wrong: what was answered counts, and every call gets an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from jobwire.v1.queue_service_pb2 import (
    ACK_STATUS_ALREADY_APPLIED,
    ACK_STATUS_APPLIED,
    AckRequest,
    JobSpec,
    PublishRequest,
)
from jobwire_server.domain.handles import Handle
from jobwire_server.store import control
from jobwire_server.store.connection import Connection
from tests.api.conftest import Api, Serve, serving
from tests.api.refusals import read, refused
from tests.api.worker import publish
from tests.chaos.proxy import Direction

from . import support_net
from .support_net import COMPLETED, PATIENCE, Books, End, Line, done, until, worker_of

books, line = support_net.books, support_net.line

FINE = End(COMPLETED, 1, 0, 0)
QUIET = {"poll_interval": 60, "renew_interval": 60}
"""For those who wait for the first statement of a kind: nothing is looked for that nobody asked for."""
JOB = "0190d7f0-0000-7000-8000-{:012}"


@pytest.fixture
def serve(line: Line, schema: str) -> Serve:
    """Servers whose database is behind the proxy."""
    return partial(serving, line.dsn, schema)


async def insisting(call: Callable[[], Awaitable[Any]]) -> tuple[Any, int]:
    """The answer of a call that is repeated while it says to repeat it, and how often that was."""
    again = 0
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await call(), again
            except grpc.aio.AioRpcError as error:
                refusal = read(error)
                assert refusal.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED), refusal
                assert refusal.retry_after is not None
                again += 1
                await asyncio.sleep(0.1)


def token_of(handle: str) -> bytes:
    """What of a handle travels to the database as it is."""
    parsed = Handle.parse(handle)
    assert parsed is not None
    return parsed.token.bytes


async def test_a_commit_whose_answer_is_lost(line: Line, serve: Serve, books: Books) -> None:
    """Of an Ack and of a publish: the client is told to repeat them, and finds them done."""
    async with serve(**QUIET) as api, worker_of(api) as worker:
        [job_id] = await publish(api)
        [delivery] = await worker.receive(1)
        ack = AckRequest(session_id=worker.session_id, items=done(delivery.handle))
        line.proxy.freeze_answers_on(token_of(delivery.handle))
        acking = asyncio.ensure_future(refused(api.queue.Ack(ack)))
        await until(lambda: books.count("archive"))
        line.proxy.cut()
        assert (await acking).reason == "DATABASE_UNAVAILABLE"
        line.proxy.heal()
        answer, _ = await insisting(lambda: api.queue.Ack(ack))
        assert [result.status for result in answer.results] == [ACK_STATUS_ALREADY_APPLIED]
        assert books.ends() == {job_id: FINE}

        request = PublishRequest(queue="other", jobs=[JobSpec(id=JOB.format(1), data='"other"')])
        await insisting(lambda: publish(api, queue="other"))
        line.proxy.freeze_answers_on(UUID(request.jobs[0].id).bytes)
        publishing = asyncio.ensure_future(refused(api.queue.Publish(request)))
        await until(lambda: books.count("live_job") == 2)
        line.proxy.cut()
        assert (await publishing).reason == "DATABASE_UNAVAILABLE"
        line.proxy.heal()
        answer, _ = await insisting(lambda: api.queue.Publish(request))
        assert [(result.created, result.data_differs) for result in answer.results] == [(False, False)]
        assert books.count("live_job") == 2


@pytest.mark.parametrize("after", [0, 20, 400, 4_000])
async def test_an_ack_cut_at_a_byte(line: Line, serve: Serve, books: Books, after: int) -> None:
    """Before, within and behind the statement that carries it: it is answered in the end, and applied once."""
    async with serve() as api, worker_of(api) as worker:
        [job_id] = await publish(api)
        [delivery] = await worker.receive(1)
        trap = line.proxy.cut_on("up", token_of(delivery.handle), after=after)
        ack = AckRequest(session_id=worker.session_id, items=done(delivery.handle))
        answer, again = await insisting(lambda: api.queue.Ack(ack))
        [result] = answer.results
        assert result.status in (ACK_STATUS_APPLIED, ACK_STATUS_ALREADY_APPLIED)
        if after < 100:
            assert trap.sprung.is_set() and again
        assert not worker.ended, "streams stay while the database is away"
    assert books.ends() == {job_id: FINE}


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_publishes_cut_at_any_byte(line: Line, serve: Serve, books: Books, direction: Direction) -> None:
    """Repeated with their ids, each is stored once."""
    async with serve() as api:
        for n in range(12):
            specs = [JobSpec(id=JOB.format(10 * n + k), data=f'"{n}"') for k in range(3)]
            line.proxy.cut_on(direction, UUID(JOB.format(10 * n)).bytes if direction == "up" else b"", after=n * 37)
            request = PublishRequest(queue="work", jobs=specs)
            answer, _ = await insisting(partial(api.queue.Publish, request))
            assert [result.job_id for result in answer.results] == [spec.id for spec in specs]
            assert not any(result.data_differs for result in answer.results)
            assert len({result.created for result in answer.results}) == 1, "all of a call, or none"
            line.proxy.heal()
        async with worker_of(api, max_in_flight=36) as worker:
            await worker.receive(36)
            answer, _ = await insisting(
                lambda: worker.report(*done(*(delivery.handle for delivery in worker.deliveries)))
            )
    assert len(await books.finished(36)) == 36


async def test_a_claim_whose_result_is_lost(line: Line, serve: Serve, books: Books) -> None:
    """It was committed, and the server does not know: what it took counts as nothing, and is delivered again."""
    async with serve(**QUIET) as api, worker_of(api, max_in_flight=1) as worker:
        await publish(api, queue="other")
        await asyncio.sleep(0.5)  # its first claim, which finds nothing, is over
        first, second = await publish(api, 2)
        [running] = await worker.receive(1)
        # The claim that follows its Ack is then the first statement to name the session.
        line.proxy.freeze_answers_on(UUID(worker.session_id).bytes)
        await worker.report(*done(running.handle))
        await until(lambda: books.count("ready") == 1)  # that of the other queue
        line.proxy.cut()
        line.proxy.heal()
        delivery = (await worker.receive(2))[1]
        assert (delivery.job_id, delivery.attempt, delivery.retry_count) == (second, 2, 0)
        assert books.one_lease_each()
        answer, _ = await insisting(lambda: worker.report(*done(delivery.handle)))
        assert [result.status for result in answer.results] == [ACK_STATUS_APPLIED]
    assert books.ends() == {first: FINE, second: End(COMPLETED, 2, 0, 0)}


async def test_a_hand_over_whose_result_is_lost(line: Line, serve: Serve, books: Books) -> None:
    """The Publish was committed with its claim; repeated, it meets its job, which is given back and delivered again."""
    async with serve(**QUIET) as api, worker_of(api, max_in_flight=1) as worker:
        await publish(api, queue="other")
        await asyncio.sleep(0.5)  # as above
        line.proxy.freeze_answers_on(UUID(worker.session_id).bytes)
        job = JobSpec(id=str(uuid4()), data="1")
        publishing = asyncio.create_task(insisting(lambda: api.queue.Publish(PublishRequest(queue="work", jobs=[job]))))
        await until(lambda: books.count("claim"))
        line.proxy.cut()
        line.proxy.heal()
        (answer, again) = await publishing
        assert again and not answer.results[0].created
        [delivery] = await worker.receive(1)
        assert (delivery.job_id, delivery.attempt, delivery.retry_count) == (job.id, 2, 0)
        await insisting(lambda: worker.report(*done(delivery.handle)))
    assert books.ends() == {job.id: End(COMPLETED, 2, 0, 0)}


async def test_a_slow_way_to_the_database(line: Line, serve: Serve, books: Books) -> None:
    async with serve() as api, worker_of(api, max_in_flight=10) as worker:
        line.proxy.delay(0.05, jitter=0.05)
        ids = await publish(api, 10)
        await worker.receive(10)
        assert await worker.complete(*worker.deliveries) == [ACK_STATUS_APPLIED] * 10
    assert books.ends() == dict.fromkeys(ids, FINE)


async def test_a_short_freeze_of_the_database_is_only_a_wait(line: Line, serve: Serve, books: Books) -> None:
    """For longer than three heartbeats and every grace: no session is lost, no job is delivered again."""
    async with serve(owner_grace=1) as one, serve(owner_grace=1) as other, worker_of(one) as worker:
        [job_id] = await publish(other)
        [delivery] = await worker.receive(1)
        line.proxy.freeze()
        acking = asyncio.ensure_future(worker.complete(delivery))
        publishing = asyncio.ensure_future(publish(other))
        await asyncio.sleep(4.0)
        assert not acking.done() and not publishing.done()
        line.proxy.thaw()
        assert await acking == [ACK_STATUS_APPLIED]
        [second] = await publishing
        await worker.receive(2)
        assert await worker.complete(worker.deliveries[1]) == [ACK_STATUS_APPLIED]
        assert not worker.ended
    assert books.ends() == dict.fromkeys([job_id, second], FINE)


async def test_no_call_waits_for_ever_for_a_frozen_database(
    line: Line, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database's kernel, or a proxy, takes what is sent, and nothing ever comes back: every call is answered."""
    monkeypatch.setattr(Connection, "patience", 3.0)  # less than in life
    monkeypatch.setattr(control, "_PATIENCE_SECONDS", 3.0)
    async with serve() as api, worker_of(api, heartbeat=5.0) as worker:
        await publish(api)
        [delivery] = await worker.receive(1)
        line.proxy.freeze()
        ack = AckRequest(session_id=worker.session_id, items=done(delivery.handle))
        new = PublishRequest(queue="work", jobs=[JobSpec(data="1")])
        try:
            async with asyncio.timeout(60):
                refusals = await asyncio.gather(refused(api.queue.Ack(ack)), refused(api.queue.Publish(new)))
                await until(lambda: not ready(api))
        finally:
            # New connections get through, those of before never will.
            line.proxy.forget()
            line.proxy.thaw()
        assert [refusal.reason for refusal in refusals] == ["DATABASE_UNAVAILABLE"] * 2
        answer, _ = await insisting(lambda: api.queue.Ack(ack))
        assert [result.status for result in answer.results] == [ACK_STATUS_APPLIED]
        await until(lambda: ready(api))


def ready(api: Api) -> bool:
    return api.server._not_ready() is None
