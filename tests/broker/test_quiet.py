"""A session whose worker is asked to leave: from any replica, across resumes, and with no signal; and who is listed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from jobwire_server.broker.broker import Broker
from jobwire_server.broker.messages import Ack, Quiet
from jobwire_server.domain.errors import SessionLost
from jobwire_server.domain.jobs import JobState
from jobwire_server.domain.sessions import ListedSession
from jobwire_server.domain.shares import Share

from .conftest import Worker, publish, subscription, until

Replica = Callable[..., Awaitable[Broker]]


def told(worker: Worker) -> int:
    """How often it was asked to leave."""
    return sum(isinstance(event, Quiet) for event in worker.events)


async def gets_nothing(worker: Worker) -> None:
    """New jobs are not for it, whatever credits it names."""
    before = len(worker.deliveries)
    await worker.broker.ack(Ack(worker.opened.session_id, (), worker.sequence, max_in_flight=10))
    await publish(worker.broker, 3)
    await asyncio.sleep(0.6)
    assert len(worker.deliveries) == before


async def listed(broker: Broker, worker: Worker, running: int = 20) -> ListedSession:
    [session] = [s for s in await broker.sessions.list(None, None, 100, running) if s.id == worker.opened.session_id]
    return session


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_the_worker_is_told_gets_nothing_more_and_may_finish(replica: Replica, elsewhere: bool) -> None:
    here = await replica()
    there = await replica() if elsewhere else here
    [job_id] = await publish(here)
    async with Worker(here, subscription()) as worker:
        [running] = await worker.receive(1)
        since = await there.sessions.drain(worker.opened.session_id)
        await until(lambda: told(worker))
        await gets_nothing(worker)
        assert await there.sessions.drain(worker.opened.session_id) == since
        await worker.ack(running.handle)
        await worker.broker.ack(Ack(worker.opened.session_id, (), worker.sequence, close_session=True))
        await until(lambda: worker.ended is True)
    assert told(worker) == 1
    assert (await here.get_job("work", job_id)).state is JobState.COMPLETED
    with pytest.raises(SessionLost):
        await there.sessions.drain(worker.opened.session_id)


async def test_a_signal_that_is_lost_is_made_up_for_by_the_renewal(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await replica(), await replica()
    monkeypatch.setattr(there.sessions, "_tell_replica", lambda *_, **__: None)
    async with Worker(here, subscription()) as worker:
        await there.sessions.drain(worker.opened.session_id)
        await until(lambda: told(worker))
        await gets_nothing(worker)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_it_is_said_again_after_each_resume(replica: Replica, elsewhere: bool) -> None:
    # No renewal comes to its help.
    rarely = {"renew_interval_ms": 30_000, "owner_grace_ms": 120_000}
    here = await replica(**rarely)
    there = await replica(**rarely) if elsewhere else here
    await publish(here)
    worker = Worker(here, subscription())
    async with worker:
        [running] = await worker.receive(1)
    await here.sessions.drain(worker.opened.session_id)
    resumed = worker.resume(running.handle, at=there)
    async with resumed:
        await until(lambda: told(resumed))
        await gets_nothing(resumed)
    async with resumed.resume(running.handle, at=here) as again:
        await until(lambda: told(again))
        await gets_nothing(again)
        assert not again.opened.lost


async def test_nobody_can_ask_a_session_that_is_over(broker: Broker) -> None:
    with pytest.raises(SessionLost):
        await broker.sessions.drain(uuid4())


async def test_a_suspect_is_not_for_who_leaves(broker: Broker) -> None:
    async with Worker(broker, subscription()) as worker:
        await broker.sessions.drain(worker.opened.session_id)
        session = broker._book.get(worker.opened.session_id)
        assert session is not None
        assert not session.idle
        assert session.credits_for("work") == 0


async def test_the_list_says_who_runs_what(replica: Replica) -> None:
    here, there = await replica(), await replica()
    shares = (Share("b", 3, max_in_flight=4, min_priority=-1, max_priority=8), Share("a"))
    terms = replace(subscription("a", "b", credits=7), shares=shares)
    async with Worker(here, terms) as worker:
        ids = await publish(here, 2, "a")
        [first, second] = await worker.receive(2)
        [third] = await publish(there, 1, "b")
        await worker.receive(3)
        seen = await listed(there, worker)
        assert (seen.worker, seen.queues, seen.shares, seen.owner) == (
            "test-worker",
            ("a", "b"),
            shares,
            here._terms.replica,
        )
        assert (seen.max_in_flight, seen.in_flight, seen.epoch) == (7, 3, 1)
        assert [(job.queue, job.attempt) for job in seen.running] == [("a", 1), ("a", 1), ("b", 1)]
        assert {job.job_id for job in seen.running} == {*ids, third}
        assert (seen.detached_at, seen.quiet_at) == (None, None)
        few = await listed(there, worker, running=1)
        assert (few.in_flight, len(few.running)) == (3, 1)
        assert (await listed(there, worker, running=0)).running == ()
        await worker.ack(first.handle)
        seen = await listed(there, worker)
        assert (seen.in_flight, {job.job_id for job in seen.running}) == (2, {second.handle.job_id, third})


async def test_the_list_tells_who_is_away_since_when_and_who_leaves(replica: Replica) -> None:
    here, there = await replica(), await replica()
    worker = Worker(here, subscription(credits=3))
    async with worker:
        await worker.broker.ack(Ack(worker.opened.session_id, (), worker.sequence, max_in_flight=5))
        async with asyncio.timeout(20):
            while (await listed(there, worker)).max_in_flight != 5:
                await asyncio.sleep(0.02)
        before = (await listed(there, worker)).renewed_at
    async with asyncio.timeout(20):
        while (seen := await listed(there, worker)).detached_at is None:
            await asyncio.sleep(0.02)
        # Noted once, however often it is renewed.
        since, renewed = seen.detached_at, seen.renewed_at
        while (seen := await listed(there, worker)).renewed_at == renewed:
            await asyncio.sleep(0.02)
    assert seen.detached_at == since
    assert before <= renewed < seen.renewed_at
    asked = await there.sessions.drain(worker.opened.session_id)
    assert (await listed(there, worker)).quiet_at == asked
    async with worker.resume(at=there):
        seen = await listed(there, worker)
        assert (seen.detached_at, seen.epoch, seen.owner) == (None, 2, there._terms.replica)
        await there.drain()
    assert (await listed(here, worker)).detached_at is not None


async def test_pages_and_queues(broker: Broker) -> None:
    workers = [Worker(broker, subscription(queue)) for queue in ("a", "b", "a")]
    async with workers[0], workers[1], workers[2]:
        ids = sorted(worker.opened.session_id for worker in workers)
        assert [session.id for session in await broker.sessions.list(None, None, 10, 0)] == ids
        assert [session.id for session in await broker.sessions.list(None, ids[0], 1, 0)] == [ids[1]]
        of_a = {workers[0].opened.session_id, workers[2].opened.session_id}
        assert {session.id for session in await broker.sessions.list("a", None, 10, 0)} == of_a
        assert await broker.sessions.list("c", UUID(int=0), 10, 0) == []
