"""Direct hand-over: the statement that stores a job claims it for who waits for it, and all else stays true."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobwire_server.broker import dispatcher
from jobwire_server.broker.broker import Broker
from jobwire_server.domain.errors import DatabaseUnavailable
from jobwire_server.domain.jobs import AckItem, AckStatus, Complete, JobState, NewJob
from jobwire_server.domain.queues import Queue
from jobwire_server.store import archive, claiming, publishing, queues, settling
from jobwire_server.store import sessions as store
from jobwire_server.store.claiming import CLAIM_SIZE, EVERYTHING, Want
from jobwire_server.store.database import Database

from .conftest import Worker, jobs, publish, subscription, until

QUEUE = Queue("work")
REPLICA = uuid4()


@pytest.fixture
def no_claims(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called on, no ticket is claimed: what is delivered is handed over."""

    async def claim(*_: Any) -> list[claiming.Claimed]:
        return []

    return lambda: monkeypatch.setattr(dispatcher.claiming, "claim", claim)


async def quiet(broker: Broker, sessions: int = 1) -> None:
    """The lane has looked for so many sessions, and found nothing."""
    lane = broker._dispatcher._lanes["work"]
    await until(lambda: len(lane.sessions) == sessions and not lane.hopeful and not lane.claiming)


async def session(database: Database, credits: int = 10) -> UUID:
    await queues.create_queue(database, QUEUE)
    session_id = uuid4()
    await store.open_session(database, REPLICA, session_id, store.SessionTerms("w", ("work",), credits, 60_000))
    return session_id


async def tickets(database: Database) -> int:
    return (await queues.count_jobs(database, ["work"]))["work"].ready


async def test_a_job_that_is_waited_for_needs_no_claim(broker: Broker, no_claims: Callable[[], None]) -> None:
    async with Worker(broker, subscription()) as worker:
        await quiet(broker)
        no_claims()
        [job_id] = await publish(broker, priority=3)
        [delivery] = await worker.receive(1)
        assert (delivery.handle.job_id, delivery.attempt, delivery.priority) == (job_id, 1, 3)
        running = await broker.get_job("work", job_id)
        assert (running.state, running.session_id) == (JobState.ACTIVE, worker.opened.session_id)
        assert running.created_at == delivery.created_at
        assert (delivery.expire_ms, delivery.retry_limit) == (running.options.expire_ms, running.options.retry_limit)
        [result] = await worker.ack(delivery.handle)
        assert result.status is AckStatus.APPLIED


async def test_the_first_go_to_who_waits_and_the_others_wait(broker: Broker) -> None:
    queue = await broker.queues.for_publish("work")
    async with Worker(broker, subscription(credits=4)) as worker:
        await quiet(broker)
        await broker.publish(queue, [NewJob(uuid4(), str(n), priority=n % 3) for n in range(12)])
        for count in range(1, 13):
            delivery = (await worker.receive(count))[count - 1]
            await worker.ack(delivery.handle)
    got = [int(delivery.data) for delivery in worker.deliveries]
    assert got == sorted(range(12), key=lambda n: (-(n % 3), n))


async def test_one_session_takes_several_claims_at_once(broker: Broker, no_claims: Callable[[], None]) -> None:
    async with Worker(broker, subscription(credits=500)) as worker:
        await quiet(broker)
        no_claims()
        ids = await publish(broker, 450)
        deliveries = await worker.receive(450)
        assert [delivery.handle.job_id for delivery in deliveries] == ids
        assert max(delivery.handle.place for delivery in deliveries) == CLAIM_SIZE


async def test_sessions_have_equal_parts(broker: Broker, no_claims: Callable[[], None]) -> None:
    terms = subscription(credits=300)
    async with Worker(broker, terms) as one, Worker(broker, terms) as other:
        await quiet(broker, sessions=2)
        no_claims()
        ids = await publish(broker, 500)
        parts = [[each.handle.job_id for each in await worker.receive(250)] for worker in (one, other)]
        assert sorted(parts, key=lambda part: part[0]) == [ids[::2], ids[1::2]]


async def test_what_is_to_wait_waits(broker: Broker) -> None:
    queue = await broker.queues.for_publish("work")
    async with Worker(broker, subscription()) as worker:
        await quiet(broker)
        await broker.publish(queue, [*jobs(1, start_in_ms=3_600_000), *jobs(1)])
        [delivery] = await worker.receive(1)
        assert delivery.handle.job_id
        counts = (await broker.queues.counts(["work"]))["work"]
        assert (counts.scheduled, counts.active) == (1, 1)


async def test_what_waits_already_comes_first(database: Database) -> None:
    """Another replica has stored it, and this one has not heard yet."""
    session_id = await session(database)
    await publishing.publish(database, QUEUE, jobs(1))
    want = Want(session_id, 1, uuid4(), 10)
    outcome = await publishing.hand_over(database, REPLICA, QUEUE, jobs(3), [want], EVERYTHING)
    assert (outcome.created, len(outcome.claimed)) == (3, 0)
    assert await tickets(database) == 4


@pytest.mark.parametrize(("replica", "epoch"), [(REPLICA, 2), (uuid4(), 1)])
async def test_a_session_that_went_on_elsewhere_gets_nothing(database: Database, replica: UUID, epoch: int) -> None:
    want = Want(await session(database), epoch, uuid4(), 10)
    outcome = await publishing.hand_over(database, replica, QUEUE, jobs(3), [want], EVERYTHING)
    assert (outcome.created, len(outcome.claimed)) == (3, 0)
    assert await tickets(database) == 3


@pytest.mark.parametrize("others", [0, 1])
async def test_a_finished_job_is_not_claimed_again(database: Database, others: int) -> None:
    """Its row and its lease are taken back in the transaction that made them."""
    session_id = await session(database)
    [known, *new] = batch = jobs(1 + others)
    for again in (False, True):
        token = uuid4()
        given = batch if again else [known]
        outcome = await publishing.hand_over(
            database, REPLICA, QUEUE, given, [Want(session_id, 1, token, 10)], EVERYTHING
        )
        named = [job.handle for job in outcome.claimed]
        assert [handle.job_id for handle in named] == [job.id for job in (new if again else [known])]
        async with database.connection() as connection:
            cursor = await connection.execute(
                f'SELECT u FROM "{database.schema}".claim, unnest(ids) u WHERE token = %s'.encode(), [token]
            )
            rows = [row[0] for row in await cursor.fetchall()]
        assert rows == ([None, *(job.id for job in new)] if again and new else [] if again else [known.id])
        await settling.settle(database, [AckItem(handle, Complete(None)) for handle in named])
        await archive.make_days_ahead(database)


async def test_a_job_is_handed_over_once(broker: Broker) -> None:
    queue = await broker.queues.for_publish("work")
    [job, other] = jobs(2)
    async with Worker(broker, subscription()) as worker:
        await quiet(broker)
        assert [result.created for result in await broker.publish(queue, [job, job])] == [True, False]
        [delivery] = await worker.receive(1)
        assert [result.created for result in await broker.publish(queue, [job])] == [False]
        await worker.ack(delivery.handle)
        # Finished: stored anew, met in the archive, and taken back in the same transaction.
        results = await broker.publish(queue, [job, other])
        assert [result.created for result in results] == [False, True]
        deliveries = await worker.receive(2)
        assert [delivery.handle.job_id for delivery in deliveries] == [job.id, other.id]
        await worker.ack(deliveries[1].handle)
        await asyncio.sleep(0.4)
        assert len(worker.deliveries) == 2
        assert (await broker.queues.counts(["work"]))["work"].active == 0


async def test_what_was_handed_over_by_a_publish_whose_result_was_lost_is_delivered_all_the_same(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over = publishing.hand_over

    async def unanswered(*args: Any) -> publishing.PublishOutcome:
        monkeypatch.setattr(dispatcher.publishing, "hand_over", hand_over)
        await hand_over(*args)
        raise DatabaseUnavailable

    queue = await broker.queues.for_publish("work")
    batch = jobs(3)
    async with Worker(broker, subscription()) as worker:
        await quiet(broker)
        monkeypatch.setattr(dispatcher.publishing, "hand_over", unanswered)
        with pytest.raises(DatabaseUnavailable):
            await broker.publish(queue, batch)
        assert [result.created for result in await broker.publish(queue, batch)] == [False] * 3
        deliveries = await worker.receive(3)
        assert [(delivery.handle.job_id, delivery.attempt) for delivery in deliveries] == [(job.id, 2) for job in batch]
        assert len(await worker.ack(*(delivery.handle for delivery in deliveries))) == 3
    job = await broker.get_job("work", batch[0].id)
    assert (job.state, job.retry_count, job.loss_count) == (JobState.COMPLETED, 0, 0)


async def test_a_hand_over_that_commits_after_it_was_given_up_stores_nothing(database: Database) -> None:
    session_id, token = await session(database), uuid4()
    assert await settling.give_back_claims(database, "work", {token: session_id}) == 0
    with pytest.raises(Exception, match="claim_pkey"):
        await publishing.hand_over(database, REPLICA, QUEUE, jobs(1), [Want(session_id, 1, token, 1)], EVERYTHING)
    assert await tickets(database) == 0


async def test_a_drain_waits_for_a_hand_over_under_way(
    replica: Callable[..., Awaitable[Broker]], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await replica(), await replica()
    hand_over, stored, go_on = publishing.hand_over, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any) -> publishing.PublishOutcome:
        outcome = await hand_over(*args)
        stored.set()
        await go_on.wait()
        return outcome

    worker = Worker(here, subscription())
    async with worker:
        await quiet(here)
        monkeypatch.setattr(dispatcher.publishing, "hand_over", slow)
        publishing_ = asyncio.create_task(publish(here))
        await stored.wait()
        draining = asyncio.create_task(here.drain())
        await asyncio.sleep(0.1)
        assert not draining.done()
        go_on.set()
        [job_id] = await publishing_
        [delivery] = await worker.receive(1)
        await draining
    async with worker.resume(delivery.handle, at=there) as resumed:
        assert resumed.opened.resumed and not resumed.opened.lost
        assert (await resumed.ack(delivery.handle))[0].status is AckStatus.APPLIED
    assert (await there.get_job("work", job_id)).attempt == 1


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.Event]:
    """Until it is set, claims that have begun do not end; they take nothing."""
    go_on = asyncio.Event()

    async def claim(*_: Any) -> list[claiming.Claimed]:
        await go_on.wait()
        return []

    monkeypatch.setattr(dispatcher.claiming, "claim", claim)
    yield go_on
    go_on.set()


async def test_new_jobs_wait_for_a_claim_under_way_and_are_handed_over(
    broker: Broker, held_up: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored meanwhile they would be claimed after it, and what comes then after them: and so on."""
    monkeypatch.setattr(dispatcher, "_CALM_SECONDS", 60.0)
    async with Worker(broker, subscription()) as worker:
        lane = broker._dispatcher._lanes["work"]
        await until(lambda: lane.claiming)
        publishing = asyncio.create_task(publish(broker, 3))
        await asyncio.sleep(0.1)
        assert not publishing.done()
        held_up.set()
        await worker.receive(3)
        assert len(await publishing) == 3


async def test_new_jobs_wait_for_claims_once_and_not_for_long(
    broker: Broker, held_up: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Worker(broker, subscription()):
        lane = broker._dispatcher._lanes["work"]
        await until(lambda: lane.claiming)
        await publish(broker)
        monkeypatch.setattr(dispatcher, "_CALM_SECONDS", 60.0)
        async with asyncio.timeout(30):
            await publish(broker)
        held_up.set()
        await until(lambda: lane.patient)
