"""Keys, policies, groups and limits, at the statements: what waits, what may run, and what nothing can make run."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row, tuple_row
from uuid_utils.compat import uuid7

from jobwire_server.domain.errors import QueueBusy
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import (
    NO_LABELS,
    AckItem,
    CancelStatus,
    Complete,
    Fail,
    JobState,
    Labels,
    NewJob,
    NotCreated,
    Outcome,
    Published,
    Release,
)
from jobwire_server.domain.queues import JobOptionsPatch, Policy, Queue, QueueLimits, QueuePatch, Rate
from jobwire_server.store import claiming, gates, publishing, queues, reading, sessions, settling, upkeep
from jobwire_server.store.database import Database
from tests.conftest import Postgres, opened

THROTTLE = Labels(throttle_ms=3_600_000)
DEBOUNCE = Labels(debounce_ms=3_600_000)
UNIQUE = Labels(unique_ms=3_600_000)
FAILED = Fail("E", "no", "")
AN_HOUR_AGO = "UPDATE rate SET times = ARRAY(SELECT t - interval '62 minutes' FROM unnest(times) t)"
BROKEN = Fail("E", "no", "", permanent=True)


@dataclass
class Desk:
    """One queue, and a worker of a replica that takes from it."""

    database: Database
    queue: Queue
    replica: UUID = field(default_factory=uuid4)
    session: UUID = field(default_factory=uuid4)

    async def open(self) -> Desk:
        terms = sessions.SessionTerms("w", (self.queue.name,), 1_000, 60_000)
        await sessions.open_session(self.database, self.replica, self.session, terms)
        return self

    async def publish(self, *jobs: NewJob) -> list[Published]:
        return (await publishing.publish_keyed(self.database, self.queue, jobs)).results

    async def put(
        self, data: str, key: str | None = None, group: str | None = None, *, labels: Labels = NO_LABELS, **more: Any
    ) -> Published:
        """One job, the gates looked after."""
        labels = replace(labels, key=key, group=group)
        [result] = await self.publish(NewJob(uuid7(), json.dumps(data), labels=labels, **more))
        await self.admit()
        return result

    async def admit(self) -> None:
        while (await gates.admit(self.database, self.queue.name))[1]:
            pass

    async def claim(self, count: int = 1_000) -> list[claiming.Claimed]:
        want = claiming.Want(self.session, 1, uuid4(), min(count, claiming.CLAIM_SIZE))
        if self.queue.limited:
            return (await claiming.claim_limited(self.database, self.replica, self.queue.name, [want])).claimed
        return await claiming.claim(self.database, self.replica, self.queue.name, [want])

    async def take(self, count: int = 1_000) -> dict[str, Handle]:
        """What can be run now, by the payload, in the order of the claim."""
        await self.admit()
        return {json.loads(job.delivery.data): job.delivery.handle for job in await self.claim(count)}

    async def settle(self, handle: Handle, outcome: Outcome = Complete(None)) -> None:  # noqa: B008  (a constant)
        await settling.settle(self.database, [AckItem(handle, outcome)])
        await self.admit()

    async def state(self, job_id: UUID) -> JobState:
        job = await reading.get_job(self.database, [self.queue.name], job_id)
        assert job is not None
        return job.state


@pytest.fixture
async def sql(postgres: Postgres, database: Database) -> AsyncIterator[Callable[..., Awaitable[list[dict[str, Any]]]]]:
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True, row_factory=dict_row) as connection:
        await connection.execute(f'SET search_path = "{database.schema}"'.encode())

        async def run(text: str, *params: Any) -> list[dict[str, Any]]:
            cursor = await connection.execute(text.encode(), params or None)
            return await cursor.fetchall() if cursor.description else []

        yield run


async def made(database: Database, queue: Queue) -> Queue:
    await queues.create_queue(database, queue)
    return (await queues.get_queues(database, [queue.name]))[queue.name]


@pytest.fixture
def desk(database: Database) -> Callable[..., Awaitable[Desk]]:
    async def make(policy: Policy = Policy.STANDARD, limits: QueueLimits | None = None, **more: Any) -> Desk:
        queue = Queue("work", policy=policy, limits=limits or QueueLimits(), **more)
        return await Desk(database, await made(database, queue)).open()

    return make


Make = Callable[..., Awaitable[Desk]]
Sql = Callable[..., Awaitable[list[dict[str, Any]]]]


# Policies.


async def test_a_singleton_queue_runs_one_job_of_each_key(desk: Make) -> None:
    work = await desk(Policy.SINGLETON)
    for data, key in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("none1", None), ("none2", None)):
        assert (await work.put(data, key)).created
    running = await work.take()
    assert list(running) == ["a1", "b1", "none1"]
    assert await work.take() == {}
    await work.settle(running["a1"])
    assert list(await work.take()) == ["a2"]


async def test_the_better_job_of_a_key_goes_first_until_another_has_been_claimed(desk: Make) -> None:
    work = await desk(Policy.SINGLETON)
    low = await work.put("low", "k")
    await work.put("high", "k", priority=5)
    assert await work.state(low.id) is JobState.BLOCKED
    running = await work.take()
    assert list(running) == ["high"]
    higher = await work.put("higher", "k", priority=9)
    assert await work.state(higher.id) is JobState.BLOCKED
    await work.settle(running["high"])
    assert list(await work.take()) == ["higher"]


async def test_a_job_that_waits_for_its_retry_does_not_keep_its_key(desk: Make) -> None:
    work = await desk(Policy.SINGLETON)
    first, _ = await work.put("first", "k"), await work.put("second", "k")
    running = await work.take()
    await work.settle(running["first"], replace(FAILED, retry_ms=600_000))
    assert await work.state(first.id) is JobState.RETRY
    assert list(await work.take()) == ["second"]


async def test_a_short_queue_has_one_job_of_a_key_waiting(desk: Make) -> None:
    work = await desk(Policy.SHORT)
    first = await work.put("first", "k")
    refused = await work.put("second", "k")
    assert (refused.created, refused.reason, refused.met) == (False, NotCreated.POLICY, first.id)
    assert (await work.put("other", "l")).created
    running = await work.take()
    assert (await work.put("third", "k")).created
    await work.settle(running["first"], FAILED)
    # One that waits for its retry has run before, and is in nobody's way.
    assert list(await work.take()) == ["third"]
    assert (await work.put("fourth", "k")).created


async def test_an_exclusive_queue_has_one_job_of_a_key(desk: Make) -> None:
    work = await desk(Policy.EXCLUSIVE)
    first = await work.put("first", "k")
    for _ in range(2):
        refused = await work.put("second", "k")
        assert (refused.reason, refused.met) == (NotCreated.POLICY, first.id)
        running = await work.take()
        if running:
            await work.settle(running["first"], replace(FAILED, retry_ms=0))
    assert (await work.put("third", "k")).reason is NotCreated.POLICY
    running = await work.take()
    await work.settle(running["first"])
    assert (await work.put("fourth", "k")).created


async def test_jobs_of_one_call_meet_each_other(desk: Make) -> None:
    work = await desk(Policy.EXCLUSIVE)
    jobs = [NewJob(uuid7(), "1", labels=Labels(key)) for key in ("a", "b", "a")]
    results = await work.publish(*jobs)
    assert [result.created for result in results] == [True, True, False]
    assert results[2].met == jobs[0].id
    again = await work.publish(*jobs)
    assert [(result.reason, result.met) for result in again[:2]] == [
        (NotCreated.DUPLICATE_ID, jobs[0].id),
        (NotCreated.DUPLICATE_ID, jobs[1].id),
    ]


async def test_a_stately_retry_that_meets_a_waiting_job_is_not_lost(desk: Make) -> None:
    work = await desk(Policy.STATELY)
    first = await work.put("first", "k")
    running = await work.take()
    second = await work.put("second", "k")
    assert second.created
    assert (await work.put("third", "k")).met == second.id
    await work.settle(running["first"], replace(FAILED, retry_ms=0))
    assert {await work.state(first.id), await work.state(second.id)} == {JobState.RETRY, JobState.BLOCKED}
    running = await work.take()
    assert list(running) == ["first"]
    await work.settle(running["first"])
    assert list(await work.take()) == ["second"]


# Order of keys.


async def test_the_jobs_of_a_key_run_in_their_order_whatever_their_priority(desk: Make) -> None:
    work = await desk(Policy.KEY_STRICT_FIFO)
    for number in range(3):
        await work.put(f"a{number}", "a", priority=number)
    await work.put("b0", "b")
    order = []
    while running := await work.take():
        order += list(running)
        for handle in running.values():
            await work.settle(handle)
    assert order == ["a0", "b0", "a1", "a2"]


async def test_what_waits_for_a_time_or_a_retry_holds_up_its_key_alone(desk: Make, sql: Sql) -> None:
    work = await desk(Policy.KEY_STRICT_FIFO)
    later = await work.put("later", "a", start_in_ms=600_000)
    behind = await work.put("behind", "a")
    failing = await work.put("failing", "b")
    await work.put("other", "c")
    assert (await work.state(later.id), await work.state(behind.id)) == (JobState.CREATED, JobState.BLOCKED)
    running = await work.take()
    assert list(running) == ["failing", "other"]
    await work.put("after failing", "b")
    await work.settle(running["failing"], replace(FAILED, retry_ms=600_000))
    assert await work.state(failing.id) is JobState.RETRY
    assert await work.take() == {}
    await sql("UPDATE scheduled SET start_after = clock_timestamp() - interval '1 second'")
    assert (await upkeep.promote_due(work.database)).keys() == {"work"}
    running = await work.take()
    assert sorted(running) == ["failing", "later"]
    for handle in running.values():
        await work.settle(handle)
    assert sorted(await work.take()) == ["after failing", "behind"]


async def test_a_job_that_failed_for_good_holds_up_its_key(desk: Make, sql: Sql) -> None:
    work = await desk(Policy.KEY_STRICT_FIFO)
    await work.put("bad", "a")
    behind = await work.put("behind", "a")
    running = await work.take()
    await work.settle(running["bad"], BROKEN)
    assert await work.take() == {}
    job = await reading.get_job(work.database, ["work"], behind.id)
    assert job is not None
    assert (job.state, job.waits_at) == (JobState.BLOCKED, "ka")
    assert len(await sql("SELECT id FROM slot WHERE failed")) == 1
    await settling.cancel(work.database, "work", [behind.id], 0)
    assert await work.state(behind.id) is JobState.CANCELLED
    await work.put("next", "a")
    assert await work.take() == {}


async def test_cancelling_the_head_lets_the_next_go(desk: Make) -> None:
    work = await desk(Policy.KEY_STRICT_FIFO)
    head = await work.put("head", "a", start_in_ms=600_000)
    await work.put("next", "a")
    assert (await settling.cancel(work.database, "work", [head.id], 0)).statuses == {head.id: CancelStatus.CANCELLED}
    assert list(await work.take()) == ["next"]


@pytest.mark.parametrize("admitted", [False, True])
async def test_what_waits_at_a_gate_can_be_cancelled(desk: Make, admitted: bool) -> None:
    work = await desk(Policy.SINGLETON)
    await work.put("first", "a")
    [second] = await work.publish(NewJob(uuid7(), '"second"', labels=Labels("a")))
    if admitted:
        await work.admit()
    assert await work.state(second.id) is (JobState.BLOCKED if admitted else JobState.CREATED)
    await settling.cancel(work.database, "work", [second.id], 0)
    assert await work.state(second.id) is JobState.CANCELLED
    running = await work.take()
    await work.settle(running["first"])
    assert await work.take() == {}


# Throttle, debounce, unique.


async def test_throttle(desk: Make, sql: Sql) -> None:
    work = await desk()
    first = await work.put("first", "k", labels=THROTTLE)
    refused = await work.put("second", "k", labels=THROTTLE)
    assert (refused.reason, refused.met) == (NotCreated.THROTTLED, first.id)
    assert (await work.put("other key", "l", labels=THROTTLE)).created
    assert (await work.put("no throttle", "k")).created
    await sql("UPDATE guard SET since = since - interval '1 hour', until = until - interval '1 hour'")
    assert (await work.put("next slot", "k", labels=THROTTLE)).created
    assert sorted(await work.take()) == ["first", "next slot", "no throttle", "other key"]


async def test_debounce_keeps_one_for_the_next_slot(desk: Make, sql: Sql) -> None:
    work = await desk()
    first = await work.put("first", "k", labels=DEBOUNCE)
    last = await work.put("last", "k", labels=DEBOUNCE)
    refused = await work.put("third", "k", labels=DEBOUNCE)
    assert (first.created, last.created, refused.reason, refused.met) == (True, True, NotCreated.DEBOUNCED, last.id)
    assert list(await work.take()) == ["first"]
    job = await reading.get_job(work.database, ["work"], last.id)
    [slot] = await sql("SELECT since FROM guard")
    assert job is not None
    assert job.start_after == slot["since"]
    # The next slot has begun, and it is taken by the one that was kept for it.
    await sql("UPDATE guard SET since = since - interval '1 hour', until = until - interval '1 hour'")
    assert (await work.put("in the slot after", "k", labels=DEBOUNCE)).created


async def test_unique_for_holds_after_the_job_has_finished_but_not_if_it_was_cancelled(desk: Make, sql: Sql) -> None:
    work = await desk()
    first = await work.put("first", "k", labels=UNIQUE)
    running = await work.take()
    await work.settle(running["first"])
    refused = await work.put("second", "k", labels=UNIQUE)
    assert (refused.reason, refused.met) == (NotCreated.NOT_UNIQUE, first.id)
    await sql("UPDATE guard SET until = clock_timestamp()")
    third = await work.put("third", "k", labels=UNIQUE)
    assert third.created
    await settling.cancel(work.database, "work", [third.id], 0)
    assert (await work.put("fourth", "k", labels=UNIQUE)).created


async def test_of_many_at_once_one_is_stored(desk: Make, postgres: Postgres) -> None:
    work = await desk(Policy.EXCLUSIVE)
    async with opened(postgres.served, work.database.schema) as other:
        results = await asyncio.gather(
            *(
                publishing.publish_keyed(
                    database, work.queue, [NewJob(uuid7(), "1", labels=Labels("k", unique_ms=60_000))]
                )
                for database in (work.database, other) * 10
            )
        )
    created = [result.results[0] for result in results if result.results[0].created]
    assert len(created) == 1
    assert {result.results[0].met for result in results} == {None, created[0].id}


# Groups, limits, rates.


async def test_groups_have_a_limit_and_tiers_one_of_their_own(desk: Make) -> None:
    work = await desk(limits=QueueLimits(group_max_active=1, tier_max_active={"gold": 2}))
    for group, tier in (("a", None), ("g", "gold")):
        for number in range(3):
            await work.put(f"{group}{number}", group=group, labels=Labels(tier=tier))
    await work.put("of none")
    running = await work.take()
    assert sorted(running) == ["a0", "g0", "g1", "of none"]
    await work.settle(running["g0"])
    assert list(await work.take()) == ["g2"]
    assert await work.take() == {}


async def test_a_key_and_a_group_are_minded_together(desk: Make) -> None:
    work = await desk(Policy.SINGLETON, QueueLimits(group_max_active=1))
    await work.put("k1 of a", "k1", "a")
    await work.put("k1 of a too", "k1", "a")
    await work.put("k2 of a", "k2", "a")
    await work.put("k3 of b", "k3", "b")
    order = []
    while running := await work.take():
        assert len(running) <= 2
        order += list(running)
        for handle in running.values():
            await work.settle(handle)
    assert order == ["k1 of a", "k3 of b", "k1 of a too", "k2 of a"]


async def test_a_better_job_takes_the_slot_of_one_that_waits_at_a_later_gate(desk: Make) -> None:
    work = await desk(Policy.SINGLETON, QueueLimits(group_max_active=1))
    await work.put("running", "k0", "a")
    running = await work.take()
    await work.put("low", "k", "a")
    await work.put("high", "k", "b", priority=3)
    assert list(await work.take()) == ["high"]
    await work.settle(running["running"])
    assert await work.take() == {}


async def test_a_queue_has_a_limit_and_keeps_to_priorities(desk: Make) -> None:
    work = await desk(limits=QueueLimits(max_active=2))
    jobs = [NewJob(uuid7(), json.dumps(f"p{n}"), priority=n) for n in range(5)]
    await publishing.publish(work.database, work.queue, jobs)
    running = await work.take()
    assert list(running) == ["p4", "p3"]
    assert await work.take() == {}
    await work.settle(running["p4"], replace(FAILED, retry_ms=0))
    assert list(await work.take()) == ["p4"]
    await work.settle(running["p3"])
    assert list(await work.take()) == ["p2"]


async def test_the_limit_holds_whoever_claims(desk: Make, postgres: Postgres) -> None:
    limit = 3
    work = await desk(limits=QueueLimits(max_active=limit))
    await publishing.publish(work.database, work.queue, [NewJob(uuid7(), str(n)) for n in range(60)])
    running: set[Handle] = set()
    done: Counter[UUID] = Counter()
    async with opened(postgres.served, work.database.schema) as other:
        desks = [work, *[await Desk(database, work.queue).open() for database in (other, work.database, other)]]

        async def run(desk: Desk) -> None:
            while sum(done.values()) < 60:
                for job in await desk.claim(2):
                    running.add(job.delivery.handle)
                    assert len(running) <= limit
                    await asyncio.sleep(random.random() / 500)
                    # Before its end is known: the next may start while the answer is on its way.
                    running.discard(job.delivery.handle)
                    await desk.settle(job.delivery.handle)
                    done[job.delivery.handle.job_id] += 1

        await asyncio.gather(*map(run, desks))
    assert len(done) == 60
    assert set(done.values()) == {1}


async def test_a_rate_of_a_queue(desk: Make, sql: Sql) -> None:
    work = await desk(limits=QueueLimits(rate=Rate(3, 3_600_000)))
    await publishing.publish(work.database, work.queue, [NewJob(uuid7(), str(n)) for n in range(8)])
    first = await work.take(2)
    assert len(first) == 2
    for handle in first.values():
        await work.settle(handle)
    want = claiming.Want(work.session, 1, uuid4(), 5)
    outcome = await claiming.claim_limited(work.database, work.replica, "work", [want])
    assert len(outcome.claimed) == 1
    assert outcome.more_in_ms is not None
    assert 3_500_000 < outcome.more_in_ms <= 3_600_000 * 65 / 64
    assert await work.take() == {}
    await sql(AN_HOUR_AGO)
    assert len(await work.take()) == 3


async def test_a_rate_of_groups(desk: Make, sql: Sql) -> None:
    work = await desk(limits=QueueLimits(group_rate=Rate(2, 3_600_000)))
    for group in ("a", "b"):
        for number in range(4):
            await work.put(f"{group}{number}", group=group)
    running = await work.take()
    assert sorted(running) == ["a0", "a1", "b0", "b1"]
    for handle in running.values():
        await work.settle(handle)
    assert await work.take() == {}
    assert (await upkeep.next_due(work.database)).job_in_ms is not None
    await sql(f"{AN_HOUR_AGO}, open_at = clock_timestamp()")
    assert (await upkeep.next_due(work.database)).gates == ["work"]
    assert sorted(await work.take()) == ["a2", "a3", "b2", "b3"]


async def test_a_group_that_comes_late_is_next(desk: Make) -> None:
    work = await desk(fair=True)
    await work.publish(*(NewJob(uuid7(), json.dumps(f"a{n}"), labels=Labels(group="a")) for n in range(500)))
    running = await work.take(10)
    await work.put("b0", group="b")
    await work.put("b1", group="b")
    await work.put("c0", group="c")
    for handle in running.values():
        await work.settle(handle)
    order = list(await work.take(8))
    assert order == ["a10", "b0", "c0", "a11", "b1", "a12", "a13", "a14"]
    # Priorities still come first.
    await work.put("d0", group="d")
    await work.put("urgent", group="a", priority=1)
    assert list(await work.take(3)) == ["urgent", "a15", "d0"]


async def test_turns_go_on_where_they_were_when_the_queue_ran_empty(desk: Make) -> None:
    work = await desk(fair=True)
    await work.publish(*(NewJob(uuid7(), json.dumps(f"a{n}"), labels=Labels(group="a")) for n in range(50)))
    await work.take()
    for number in range(3):
        await work.put(f"b{number}", group="b")
        await work.put(f"a again {number}", group="a")
    assert list(await work.take()) == ["a again 0", "b0", "a again 1", "b1", "a again 2", "b2"]


async def test_a_turn_is_no_place_of_a_job_that_has_none(desk: Make) -> None:
    work = await desk()
    await work.publish(NewJob(uuid7(), '"before"', labels=Labels(group="a")))
    await work.settle((await work.take())["before"], Release(0))
    await change(work, QueuePatch(fair=True))
    for number in range(3):
        await work.put(f"b{number}", group="b")
    # What came before there were turns is before all of them.
    assert list(await work.take()) == ["before", "b0", "b1", "b2"]


async def test_turns_of_different_priorities_are_different_places(desk: Make, sql: Sql) -> None:
    work = await desk(fair=True)
    jobs = [await work.put(f"{priority}", group="a", priority=priority) for priority in range(3)]
    for handle in (await work.take()).values():
        await work.settle(handle, Release(3_600_000))
    assert {await work.state(job.id) for job in jobs} == {JobState.RETRY}
    await sql("UPDATE scheduled SET start_after = now()")
    assert await upkeep.promote_due(work.database) == {"work": True}
    assert list(await work.take()) == ["2", "1", "0"]


async def test_when_turns_end_what_waits_keeps_its_order_and_is_before_what_comes(desk: Make, sql: Sql) -> None:
    work = await desk(fair=True)
    for data in ("a0", "a1", "a2", "b0", "b1"):
        await work.put(data, group=data[0])
    running = await work.take(2)
    assert list(running) == ["a0", "b0"]
    await work.settle(running["b0"], Release(3_600_000))
    await change(work, QueuePatch(fair=False))
    await work.put("c0", group="c")
    await work.settle(running["a0"], Release(0))
    await sql("UPDATE scheduled SET start_after = now()")
    await upkeep.promote_due(work.database)
    assert list(await work.take()) == ["a0", "b0", "a1", "b1", "a2", "c0"]


# Whatever ends a stay, and whatever dies on the way.


async def held(work: Desk) -> list[UUID]:
    async with work.database.connection() as connection:
        rows = await connection.execute(f'SELECT id FROM "{work.database.schema}".slot ORDER BY id'.encode())
        return [row.id for row in await rows.fetchall()]


@pytest.mark.parametrize("how", ["complete", "fail", "release", "lost", "cancelled", "expired"])
async def test_a_slot_is_given_back_however_a_lease_ends(desk: Make, sql: Sql, how: str) -> None:
    work = await desk(Policy.SINGLETON)
    first = await work.put("first", "k", options=JobOptionsPatch(retry_limit=0, expire_ms=1_000))
    second = await work.put("second", "k")
    running = await work.take()
    handle = running["first"]
    if how == "complete":
        await work.settle(handle)
    elif how == "fail":
        await work.settle(handle, BROKEN)
    elif how == "release":
        await work.settle(handle, Release(600_000))
    elif how == "lost":
        await sessions.end_session(work.database, work.session, epoch=None, renewals=None)
        await work.open()
    else:
        if how == "cancelled":
            await settling.cancel(work.database, "work", [first.id], 0)
        else:
            await sql("UPDATE claim SET claimed_at = claimed_at - interval '1 hour', check_at = claimed_at")
            await upkeep.check_limits(work.database, 0)
        await sql("UPDATE claim SET check_at = clock_timestamp() - interval '1 second'")
        await upkeep.check_limits(work.database, 0)
    await work.admit()
    assert await held(work) == [first.id if how == "lost" else second.id]
    assert list(await work.take()) == (["first"] if how == "lost" else ["second"])


async def test_recover_sends_what_ran_to_the_gates(desk: Make) -> None:
    work = await desk(Policy.SINGLETON)
    await work.put("first", "k")
    await work.put("second", "k")
    await work.take()
    assert (await upkeep.recover(work.database)).jobs == {"work": 1}
    await work.open()
    assert list(await work.take()) == ["first"]
    assert await work.take() == {}


async def test_random_lives_at_the_gates(  # noqa: C901  (a life has many turns)
    desk: Make, postgres: Postgres
) -> None:
    """Four workers on two pools, each doing what comes to its mind; the gates looked after by whoever comes by."""
    dice = random.Random(7)
    limits = QueueLimits(max_active=6, group_max_active=2, tier_max_active={"gold": 3})
    work = await desk(Policy.SINGLETON, limits, fair=True)
    running: dict[Handle, tuple[str, str]] = {}
    published: set[UUID] = set()
    allowed = {"g0": 3, "g1": 2, "g2": 2}

    def check() -> None:
        assert len(running) <= 6
        keys, groups = Counter(key for key, _ in running.values()), Counter(group for _, group in running.values())
        assert all(count <= 1 for count in keys.values())
        assert all(count <= allowed[group] for group, count in groups.items())

    async with opened(postgres.served, work.database.schema) as other:

        async def live(database: Database) -> None:
            mine = await Desk(database, work.queue).open()
            for _ in range(60):
                choice = dice.random()
                if choice < 0.4:
                    group = dice.choice(list(allowed))
                    labels = Labels(f"k{dice.randrange(8)}", group, "gold" if group == "g0" else None)
                    data = json.dumps(f"{labels.key} {group}")
                    job = NewJob(uuid7(), data, priority=dice.randrange(3), labels=labels)
                    published.update(result.id for result in await mine.publish(job))
                elif choice < 0.5:
                    await gates.admit(database, "work")
                elif choice < 0.55 and published:
                    await settling.cancel(database, "work", [dice.choice(sorted(published))], 0)
                else:
                    for job in await mine.claim(dice.randrange(1, 4)):
                        running[job.delivery.handle] = tuple(json.loads(job.delivery.data).split())
                        check()
                        await asyncio.sleep(dice.random() / 300)
                        del running[job.delivery.handle]
                        outcome = dice.choice([Complete(None), Complete(None), replace(FAILED, retry_ms=0), Release(0)])
                        await settling.settle(database, [AckItem(job.delivery.handle, outcome)])

        await asyncio.gather(*(live(database) for database in (work.database, other) * 2))
        for _ in range(1_000):
            if not (running_now := await work.take()):
                break
            for handle in running_now.values():
                await settling.settle(work.database, [AckItem(handle, Complete(None))])
    await work.admit()
    assert await held(work) == []
    counts = (await queues.count_jobs(work.database, ["work"]))["work"]
    assert (counts.ready, counts.active, counts.blocked, counts.scheduled) == (0, 0, 0, 0)
    states = {await work.state(job_id) for job_id in published}
    assert states <= {JobState.COMPLETED, JobState.CANCELLED, JobState.FAILED}


# Changes.


async def change(work: Desk, patch: QueuePatch) -> None:
    assert await queues.update_queue(work.database, "work", patch, "us")
    work.queue = (await queues.get_queues(work.database, ["work"]))["work"]


async def test_limits_hold_for_what_waits_and_runs_when_they_are_set(desk: Make) -> None:
    work = await desk()
    jobs = [NewJob(uuid7(), json.dumps(f"{group}{n}"), labels=Labels(group=group)) for n in range(4) for group in "ab"]
    await work.publish(*jobs)
    running = await work.take(3)
    assert list(running) == ["a0", "b0", "a1"]
    await change(work, QueuePatch(limits=QueueLimits(group_max_active=1)))
    assert await work.take() == {}
    await work.settle(running["a0"])
    assert await work.take() == {}
    await work.settle(running["a1"])
    assert list(await work.take()) == ["a2"]
    await work.settle(running["b0"])
    await change(work, QueuePatch(limits=QueueLimits()))
    assert list(await work.take()) == ["b1", "b2", "a3", "b3"]
    assert await held(work) == []


async def test_a_plain_publish_or_claim_of_who_has_not_heard_stores_and_takes_nothing(desk: Make) -> None:
    work = await desk()
    before = work.queue
    await change(work, QueuePatch(policy=Policy.SINGLETON))
    with pytest.raises(publishing.QueueChanged):
        await publishing.publish(work.database, before, [NewJob(uuid7(), "1")])
    wants = [claiming.Want(work.session, 1, uuid4(), 1)]
    with pytest.raises(publishing.QueueChanged):
        await publishing.hand_over(
            work.database, work.replica, before, [NewJob(uuid7(), "1")], wants, claiming.EVERYTHING
        )
    assert (await queues.count_jobs(work.database, ["work"]))["work"].ready == 0
    await change(work, QueuePatch(policy=Policy.STANDARD, limits=QueueLimits(max_active=1)))
    await publishing.publish(work.database, work.queue, [NewJob(uuid7(), "1")])
    assert await claiming.claim(work.database, work.replica, "work", wants) == []
    assert len((await claiming.claim_limited(work.database, work.replica, "work", wants)).claimed) == 1


async def test_nothing_of_a_paused_queue_is_claimed(desk: Make) -> None:
    work = await desk()
    await work.put("job")
    await queues.pause_queue(work.database, "work", "us", paused=True)
    assert await work.claim() == []
    want = claiming.Want(work.session, 1, uuid4(), 1)
    assert (await claiming.claim_limited(work.database, work.replica, "work", [want])).claimed == []
    assert await claiming.claim_suspect(work.database, work.replica, "work", want) == []
    outcome = await publishing.hand_over(
        work.database, work.replica, work.queue, [NewJob(uuid7(), "1")], [want], claiming.EVERYTHING
    )
    assert (outcome.results[0].created, outcome.claimed) == (True, [])
    await queues.pause_queue(work.database, "work", "us", paused=False)
    assert len(await work.claim()) == 2


async def test_a_queue_with_jobs_that_have_no_key_cannot_keep_the_order_of_keys(desk: Make) -> None:
    work = await desk()
    await work.put("no key")
    with pytest.raises(QueueBusy):
        await queues.update_queue(work.database, "work", QueuePatch(policy=Policy.KEY_STRICT_FIFO), "us")


# What it costs.


async def buffers(work: Desk, statement: str, params: dict[str, Any]) -> int:
    """How many pages a statement touches."""
    async with work.database.transaction() as connection:
        cursor = connection.cursor(row_factory=tuple_row)
        text = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + work.database.statement(statement)
        [[[explained]]] = await (await cursor.execute(text, params)).fetchall()
        plan = explained["Plan"]
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("keys", [2_000])
async def test_a_claim_reads_as_much_in_a_deep_queue_as_in_an_empty_one(desk: Make, sql: Sql, keys: int) -> None:
    work = await desk(Policy.KEY_STRICT_FIFO)
    await work.put("bad", "blocked")
    running = await work.take()
    await work.settle(running["bad"], BROKEN)

    async def cost() -> tuple[int, int]:
        await work.publish(NewJob(uuid7(), '"probe"', priority=9, labels=Labels(f"probe {uuid4()}")))
        admitting = await buffers(work, "admit", {"queue": "work", "limit": 500})
        want = claiming.Want(work.session, 1, uuid4(), 1)
        params = claiming.claim_params(work.replica, "work", [want], claiming.EVERYTHING)
        return admitting, await buffers(work, "claim", params)

    # Plans are made, and the catalog read, at the first time.
    await cost()
    before = await cost()
    for start in range(0, keys, 500):
        await work.publish(
            *(NewJob(uuid7(), "1", labels=Labels(f"k{n}")) for n in range(start, start + 500) for _ in range(2)),
            *(NewJob(uuid7(), "1", labels=Labels("blocked")) for _ in range(500)),
        )
        await work.admit()
    await sql("VACUUM ANALYZE live_job, ready, blocked, slot, gate_event, claim, queue")
    await cost()
    after = await cost()
    assert after[0] <= before[0] * 1.5 + 20
    assert after[1] <= before[1] * 1.5 + 20
