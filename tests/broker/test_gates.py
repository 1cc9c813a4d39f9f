"""Keys, groups and limits over two replicas: what one does lets the other go on, by signal or else by the floor.

Where the poll is so slow that it never comes, what arrives was told of.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from jobwire_server.broker import gatekeeper
from jobwire_server.broker.broker import Broker
from jobwire_server.broker.messages import Ack
from jobwire_server.domain.errors import DatabaseUnavailable
from jobwire_server.domain.jobs import AckItem, Complete, Delivery, Fail, Labels
from jobwire_server.domain.queues import Policy, Queue, QueueLimits, QueuePatch, Rate
from tests.broker.conftest import Worker, publish, subscription, until
from tests.conftest import Postgres

Replica = Callable[..., Awaitable[Broker]]
Sql = Callable[..., Awaitable[list[tuple[Any, ...]]]]

SLOW = 3_600_000
"""A poll that does not come within a test."""
ONE_RUNS: Mapping[str, Mapping[str, Any]] = {
    "key": {"policy": Policy.SINGLETON},
    "ordered key": {"policy": Policy.KEY_STRICT_FIFO},
    "group": {"limits": QueueLimits(group_max_active=1)},
    "queue": {"limits": QueueLimits(max_active=1)},
}
"""Rules by which one job of those published here runs."""
LABELS = Labels(key="k", group="g")


@pytest.fixture
async def sql(postgres: Postgres, schema: str) -> AsyncIterator[Sql]:
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection:
        await connection.execute(f'SET search_path = "{schema}"'.encode())

        async def run(text: str, *params: Any) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(text.encode(), params or None)
            return await cursor.fetchall() if cursor.description else []

        yield run


@pytest.fixture
async def pair(replica: Replica) -> tuple[Broker, Broker]:
    """Two replicas that go by what they are told."""
    return await replica(poll_interval_ms=SLOW), await replica(poll_interval_ms=SLOW)


async def job_of(worker: Worker, place: int = 1) -> Delivery:
    """The delivery that comes as the `place`-th."""
    await until(lambda: len(worker.deliveries) >= place, 60)
    return worker.deliveries[place - 1]


async def calm(broker: Broker, queue: str = "work") -> None:
    """Returns when the replica has looked at all that it was told of, and found nothing more to take."""
    lane = broker._dispatcher._lanes[queue]
    gates = broker._gatekeeper._again
    await until(lambda: lane.calm.is_set() and not lane.changed.is_set() and queue not in gates, 60)


async def leave(worker: Worker, delivery: Delivery, at: Broker | None = None) -> None:
    """Completes a job, and takes no more."""
    await worker.broker.ack(Ack(worker.opened.session_id, (), worker.sequence, max_in_flight=0))
    item = AckItem(delivery.handle, Complete(None))
    await (at or worker.broker).ack(Ack(worker.opened.session_id, (item,), worker.sequence))


@pytest.mark.parametrize(
    ("rules", "gate_of", "most"),
    [
        ({"policy": Policy.SINGLETON}, lambda labels: labels.key, lambda _: 1),
        ({"policy": Policy.KEY_STRICT_FIFO}, lambda labels: labels.key, lambda _: 1),
        (
            {"limits": QueueLimits(group_max_active=2, tier_max_active={"gold": 3}), "fair": True},
            lambda labels: labels.group,
            lambda group: 3 if group == "g0" else 2,
        ),
        ({"limits": QueueLimits(max_active=3)}, lambda _: "", lambda _: 3),
    ],
)
async def test_limits_hold_over_both_replicas(
    pair: tuple[Broker, Broker],
    rules: Mapping[str, Any],
    gate_of: Callable[[Labels], str],
    most: Callable[[str], int],
) -> None:
    await pair[0].queues.create(Queue("work", **rules))
    labels = [Labels(f"k{n % 4}", f"g{n % 3}", "gold" if n % 3 == 0 else None) for n in range(48)]
    ids: dict[UUID, Labels] = {}
    running: Counter[str] = Counter()
    largest: Counter[str] = Counter()
    order: dict[str, list[UUID]] = defaultdict(list)

    async def run(worker: Worker) -> None:
        while True:
            await until(lambda: worker.deliveries, 100)
            batch, worker.deliveries = worker.deliveries, []
            for delivery in batch:
                gate = gate_of(ids[delivery.handle.job_id])
                running[gate] += 1
                largest[gate] = max(largest[gate], running[gate])
                order[gate].append(delivery.handle.job_id)
            for delivery in batch:
                # From here on it may be settled at any time.
                running[gate_of(ids[delivery.handle.job_id])] -= 1
                await worker.ack(delivery.handle)

    async with AsyncExitStack() as stack:
        for place, label in enumerate(labels):
            [job_id] = await publish(pair[place % 2], labels=label)
            ids[job_id] = label
        workers = [
            await stack.enter_async_context(Worker(broker, subscription(credits=8))) for broker in (*pair, *pair)
        ]
        tasks = [asyncio.create_task(run(worker)) for worker in workers]
        await until(lambda: sum(map(len, order.values())) == len(ids) or any(task.done() for task in tasks), 100)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [error for error in ended if isinstance(error, Exception)]
    assert all(largest[gate] <= most(gate) for gate in largest), largest
    if rules.get("policy") is Policy.KEY_STRICT_FIFO:
        for key, delivered in order.items():
            assert delivered == [job_id for job_id, label in ids.items() if label.key == key]


@pytest.mark.parametrize("where", ["same replica", "other replica", "replica that has not heard of the queue"])
@pytest.mark.parametrize("rules", ONE_RUNS)
async def test_who_ends_a_job_lets_the_next_start_elsewhere(
    pair: tuple[Broker, Broker], replica: Replica, rules: str, where: str
) -> None:
    await pair[0].queues.create(Queue("work", **ONE_RUNS[rules]))
    at = {"same replica": pair[0], "other replica": pair[1]}.get(where) or await replica(poll_interval_ms=SLOW)
    await publish(pair[0], 2, labels=LABELS)
    async with Worker(pair[0], subscription(credits=1)) as first:
        running = await job_of(first)
        async with Worker(pair[1], subscription(credits=1)) as second:
            await calm(pair[1])
            assert not second.deliveries
            await leave(first, running, at)
            assert (await job_of(second)).handle.job_id != running.handle.job_id


@pytest.mark.parametrize("rules", ONE_RUNS)
async def test_a_lost_session_gives_its_slot_back(pair: tuple[Broker, Broker], rules: str) -> None:
    await pair[0].queues.create(Queue("work", **ONE_RUNS[rules]))
    await publish(pair[0], 2, labels=LABELS)
    async with Worker(pair[0], subscription(credits=1, grace_ms=100)) as lost:
        running = await job_of(lost)
        await lost.sign()
    async with Worker(pair[1], subscription(credits=1)) as worker:
        for place in (1, 2):
            delivery = await job_of(worker, place)
            await worker.ack(delivery.handle)
    assert running.handle.job_id in [delivery.handle.job_id for delivery in worker.deliveries]


@pytest.mark.parametrize("rules", ["key", "ordered key", "group"])
async def test_what_a_dead_replica_did_not_see_to_is_found(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, sql: Sql, rules: str
) -> None:
    """It dies between the commit of an Ack and its look at the gates."""
    dying, other = await replica(poll_interval_ms=SLOW), await replica()
    await dying.queues.create(Queue("work", **ONE_RUNS[rules]))
    async with Worker(dying, subscription(credits=1)) as first, Worker(other, subscription(credits=1)) as second:
        await publish(dying, 2, labels=LABELS)
        await until(lambda: first.deliveries or second.deliveries, 60)
        holder, waiting = (first, second) if first.deliveries else (second, first)
        running = holder.deliveries[0]
        monkeypatch.setattr(dying._gatekeeper, "poke", lambda _: None)
        monkeypatch.setattr(dying._signals, "tell_queue", lambda *_: None)
        await leave(holder, running, dying)
        await job_of(waiting)
    assert await sql("SELECT count(*) FROM gate_event") == [(0,)]


async def test_a_look_at_the_gates_that_failed_is_made_again(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = await replica()
    await broker.queues.create(Queue("work", policy=Policy.SINGLETON))
    admit, failures = gatekeeper.gates.admit, 0

    async def fail_once(*args: Any) -> tuple[int, bool]:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise DatabaseUnavailable
        return await admit(*args)

    monkeypatch.setattr(gatekeeper.gates, "admit", fail_once)
    async with Worker(broker, subscription()) as worker:
        await publish(broker, labels=LABELS)
        await job_of(worker)
    assert failures > 1


@pytest.mark.parametrize("rules", ONE_RUNS)
async def test_what_was_published_in_sql_starts(pair: tuple[Broker, Broker], sql: Sql, rules: str) -> None:
    await pair[0].queues.create(Queue("work", **ONE_RUNS[rules]))
    async with Worker(pair[1], subscription(credits=1)) as worker:
        await calm(pair[1])
        options = '{"key": "k", "group": "g"}'
        ids = [(await sql("SELECT publish('work', '{}', %s::jsonb)", options))[0][0] for _ in range(2)]
        for place in (1, 2):
            delivery = await job_of(worker, place)
            await worker.ack(delivery.handle)
    assert [delivery.handle.job_id for delivery in worker.deliveries] == ids


async def test_of_a_throttled_key_one_starts(pair: tuple[Broker, Broker], sql: Sql) -> None:
    async with Worker(pair[0], subscription()) as worker:
        await calm(pair[0])
        said = '{"key": "k", "throttle": 31536000}'
        [(first,)] = await sql("SELECT publish('work', '{}', %s::jsonb)", said)
        assert await sql("SELECT publish('work', '{}', %s::jsonb)", said) == [(None,)]
        assert (await job_of(worker)).handle.job_id == first
        [last] = await publish(pair[1])
        await job_of(worker, 2)
    assert [delivery.handle.job_id for delivery in worker.deliveries] == [first, last]


@pytest.mark.parametrize("rules", [{}, *ONE_RUNS.values()], ids=["plain", *ONE_RUNS])
async def test_a_pause_holds_on_both_replicas_and_a_resume_wakes_both(
    pair: tuple[Broker, Broker], rules: Mapping[str, Any]
) -> None:
    await pair[0].queues.create(Queue("work", **rules))
    async with (
        Worker(pair[0], subscription(credits=1)) as here,
        Worker(pair[1], subscription(credits=1)) as there,
    ):
        for broker in pair:
            await calm(broker)
        await pair[0].pause_queue("work", paused=True)
        for broker in pair:
            await publish(broker, labels=LABELS)
        for broker in pair:
            await until(lambda broker=broker: (known := broker.queues.known("work")) and known.paused, 60)
            await calm(broker)
        assert not here.deliveries and not there.deliveries
        await pair[0].pause_queue("work", paused=False)
        if not rules:
            await job_of(here)
            await job_of(there)
            return
        await until(lambda: here.deliveries or there.deliveries, 60)
        first, second = (here, there) if here.deliveries else (there, here)
        await leave(first, first.deliveries[0])
        await job_of(second)


async def test_a_paused_queue_leaves_a_sessions_other_queues_alone(pair: tuple[Broker, Broker]) -> None:
    for queue in ("work", "other", "third"):
        await pair[0].queues.create(Queue(queue))
    async with Worker(pair[0], subscription("work", "other", "third", credits=1)) as worker:
        for queue in ("work", "other"):
            await pair[0].pause_queue(queue, paused=True)
            await publish(pair[0], queue=queue)
        [running] = await publish(pair[1], queue="third")
        delivery = await job_of(worker)
        assert delivery.handle.job_id == running
        for place, queue in enumerate(("work", "other"), 2):
            await worker.ack(delivery.handle)
            await pair[0].pause_queue(queue, paused=False)
            delivery = await job_of(worker, place)
            assert delivery.handle.queue == queue


async def test_a_replica_whose_worker_came_alone_is_woken_by_a_resume(pair: tuple[Broker, Broker]) -> None:
    """The other has no worker, so this one has to hear of it."""
    await pair[0].queues.create(Queue("work", limits=QueueLimits(max_active=5)))
    await pair[0].pause_queue("work", paused=True)
    await publish(pair[0], 2)
    async with Worker(pair[1], subscription(credits=5)) as worker:
        await calm(pair[1])
        assert not worker.deliveries
        await pair[0].pause_queue("work", paused=False)
        await job_of(worker, 2)


async def test_the_next_start_of_a_rate_comes_when_it_may(pair: tuple[Broker, Broker], sql: Sql) -> None:
    period = 400
    await pair[0].queues.create(Queue("work", limits=QueueLimits(rate=Rate(2, period))))
    async with Worker(pair[0], subscription()) as here, Worker(pair[1], subscription()) as there:
        await publish(pair[0], 7)
        await until(lambda: len(here.deliveries) + len(there.deliveries) == 7, 60)
        claimed = "SELECT claimed_at FROM claim CROSS JOIN LATERAL unnest(ids) ORDER BY claimed_at"
        starts = [at for (at,) in await sql(claimed)]
    assert len(starts) == 7
    apart = [later - earlier for earlier, later in zip(starts, starts[2:], strict=False)]
    assert min(apart) >= timedelta(milliseconds=period)


async def test_the_next_start_of_a_groups_rate_comes_when_it_may(replica: Replica, sql: Sql) -> None:
    period = 400
    brokers = await replica(), await replica()
    await brokers[0].queues.create(Queue("work", limits=QueueLimits(group_rate=Rate(2, period))))
    async with Worker(brokers[0], subscription()) as here, Worker(brokers[1], subscription()) as there:
        await publish(brokers[0], 5, labels=LABELS)
        await until(lambda: len(here.deliveries) + len(there.deliveries) == 5, 60)
        claimed = "SELECT claimed_at FROM claim CROSS JOIN LATERAL unnest(ids) ORDER BY claimed_at"
        starts = [at for (at,) in await sql(claimed)]
    apart = [later - earlier for earlier, later in zip(starts, starts[2:], strict=False)]
    assert min(apart) >= timedelta(milliseconds=period)


@pytest.mark.parametrize("limits", [QueueLimits(max_active=3), QueueLimits()], ids=["more", "none"])
async def test_new_limits_hold_on_the_other_replica(pair: tuple[Broker, Broker], limits: QueueLimits) -> None:
    await pair[0].queues.create(Queue("work", limits=QueueLimits(max_active=1)))
    async with Worker(pair[1], subscription(credits=10)) as worker:
        await publish(pair[1], 4)
        await job_of(worker)
        await calm(pair[1])
        assert len(worker.deliveries) == 1
        await pair[0].change_queue("work", QueuePatch(limits=limits))
        may = limits.max_active or 4
        await job_of(worker, may)
        await calm(pair[1])
        assert len(worker.deliveries) == may


@pytest.mark.parametrize(
    "limits",
    [QueueLimits(max_active=3), QueueLimits(max_active=1, group_max_active=2), QueueLimits()],
    ids=["limited", "limited and gated", "none"],
)
async def test_new_limits_that_nobody_told_of_are_found(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, limits: QueueLimits
) -> None:
    """A replica goes on by the old ones until it looks, and then it does look."""
    changing, working = await replica(), await replica()
    before = QueueLimits() if limits.max_active else QueueLimits(max_active=1)
    await changing.queues.create(Queue("work", limits=before))
    async with Worker(working, subscription(credits=10)) as worker:
        await calm(working)
        monkeypatch.setattr(changing._signals, "tell_queue", lambda *_: None)
        await changing.change_queue("work", QueuePatch(limits=limits))
        await publish(changing, 3, labels=LABELS)
        for place in (1, 2, 3):
            delivery = await job_of(worker, place)
            await worker.ack(delivery.handle)


async def test_a_limit_that_is_set_holds_at_once_on_the_other_replica(pair: tuple[Broker, Broker]) -> None:
    await pair[0].queues.create(Queue("work"))
    async with Worker(pair[1], subscription(credits=10)) as worker:
        await calm(pair[1])
        await pair[0].change_queue("work", QueuePatch(limits=QueueLimits(max_active=2)))
        await publish(pair[1], 4)
        await job_of(worker, 2)
        await calm(pair[1])
        assert len(worker.deliveries) == 2
        await worker.ack(worker.deliveries[0].handle)
        await job_of(worker, 3)


async def test_a_job_that_failed_for_good_holds_up_its_key_alone(pair: tuple[Broker, Broker]) -> None:
    await pair[0].queues.create(Queue("work", policy=Policy.KEY_STRICT_FIFO))
    [broken, _] = await publish(pair[0], 2, labels=Labels(key="k"))
    [free] = await publish(pair[1], labels=Labels(key="l"))
    async with Worker(pair[0], subscription()) as here:
        await job_of(here, 2)
        by_id = {delivery.handle.job_id: delivery.handle for delivery in here.deliveries}
        assert set(by_id) == {broken, free}
        await here.ack(by_id[broken], outcome=Fail("E", "no", "", permanent=True))
        await here.ack(by_id[free])
        [last] = await publish(pair[1], labels=Labels(key="l"))
        assert (await job_of(here, 3)).handle.job_id == last
        await calm(pair[0])
        assert len(here.deliveries) == 3
