"""A session over several queues: weights, limits and priorities, and that no queue waits for ever."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobwire_server.broker import dispatcher
from jobwire_server.broker.broker import Broker
from jobwire_server.broker.messages import Resume, Subscription
from jobwire_server.domain.errors import DatabaseUnavailable
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import AckStatus, Fail, JobState
from jobwire_server.domain.shares import Share
from jobwire_server.store import claiming, publishing, settling

from .conftest import Worker, jobs, publish, subscription, until

Replica = Callable[..., Awaitable[Broker]]


def shared(*shares: Share, credits: int = 10, resume: Resume | None = None) -> Subscription:
    terms = subscription(*(share.queue for share in shares), credits=credits, resume=resume)
    return replace(terms, shares=shares)


class Sharer(Worker):
    """A worker that settles what it is given, one after the other."""

    done = 0

    async def work_through(self, count: int) -> Counter[str]:
        """Completes the next so many deliveries as they arrive; says how many were of which queue."""
        got: Counter[str] = Counter()
        for _ in range(count):
            delivery = (await self.receive(self.done + 1))[self.done]
            self.done += 1
            await self.ack(delivery.handle)
            got[delivery.handle.queue] += 1
        return got


async def leave_it(worker: Worker, count: int) -> None:
    """So many deliveries have arrived, and no more come."""
    await worker.receive(count)
    await asyncio.sleep(0.5)
    assert len(worker.deliveries) == count


@pytest.mark.parametrize("credits", [1, 4, 30])
async def test_jobs_are_delivered_in_proportion_to_the_weights(broker: Broker, credits: int) -> None:
    for queue in ("a", "b"):
        await publish(broker, 200, queue)
    async with Sharer(broker, shared(Share("a", 3), Share("b", 1), credits=credits)) as worker:
        # What the first claims bring may be before the lanes know of each other.
        await worker.work_through(credits)
        got = await worker.work_through(120)
    assert abs(got["a"] - 90) <= 4
    assert abs(got["b"] - 30) <= 4


async def test_weights_hold_in_lanes_whose_claims_are_too_small_for_all_sessions(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_JOBS_PER_CLAIM", 3)
    for queue in ("a", "b"):
        await publish(broker, 500, queue)
    terms = shared(Share("a", 3), Share("b", 1), credits=2)
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(Sharer(broker, terms)) for _ in range(8)]
        async with asyncio.timeout(60):
            parts = await asyncio.gather(*(worker.work_through(50) for worker in workers))
    for part in parts:
        assert abs(part["a"] - 37.5) <= 5, parts


async def test_the_lightest_queue_has_its_turn_beside_the_heaviest(broker: Broker) -> None:
    await publish(broker, 420, "heavy")
    await publish(broker, 20, "light")
    async with Sharer(broker, shared(Share("heavy", 100), Share("light", 1), credits=2)) as worker:
        await worker.work_through(2)
        got = await worker.work_through(404)
    assert 3 <= got["light"] <= 6


@pytest.mark.parametrize("credits", [1, 3])
async def test_no_queue_of_a_session_without_shares_waits_for_ever(broker: Broker, credits: int) -> None:
    for queue in ("a", "b", "c"):
        await publish(broker, 60, queue)
    async with Sharer(broker, subscription("a", "b", "c", credits=credits)) as worker:
        got = await worker.work_through(90)
    assert all(abs(got[queue] - 30) <= 4 for queue in ("a", "b", "c"))


async def test_a_queue_that_has_nothing_holds_up_no_other(broker: Broker) -> None:
    await publish(broker, 10, "light")
    async with Sharer(broker, shared(Share("heavy", 100), Share("light", 1))) as worker:
        await leave_it(worker, 10)
        await worker.work_through(10)
        # Nor when jobs come while it waits.
        await publish(broker, 10, "light")
        assert await worker.work_through(10) == {"light": 10}


async def test_credits_that_a_claim_did_not_use_are_the_others_at_once(replica: Replica) -> None:
    # No look for what no signal told of comes to its help.
    broker = await replica(poll_interval_ms=60_000)
    await publish(broker, 5, "light")
    async with Sharer(broker, shared(Share("heavy", 100), Share("light", 1), credits=1)) as worker:
        assert await worker.work_through(5) == {"light": 5}


async def test_what_was_lost_while_other_such_claims_are_given_back_is_given_back_too(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_back, doubtful, asked = settling.give_back_claims, broker._dispatcher._doubtful, []

    async def meanwhile(database: Any, queue: str, claims: Any) -> int:
        asked.append(set(claims))
        if len(asked) == 1:
            doubtful[queue][late] = session_id
        return await give_back(database, queue, claims)

    monkeypatch.setattr(dispatcher.settling, "give_back_claims", meanwhile)
    async with Worker(broker, subscription()) as worker:
        early, late, session_id = uuid4(), uuid4(), worker.opened.session_id
        doubtful["work"][early] = session_id
        broker._dispatcher.wake("work", from_start=True, suspects=True)
        await until(lambda: len(asked) == 2)
        assert asked == [{early}, {late}]
        await until(lambda: "work" not in doubtful)


async def test_a_lane_that_fails_holds_up_no_other(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = claiming.claim

    async def failing(database: Any, replica: UUID, queue: str, *args: Any) -> Any:
        if queue == "broken":
            raise DatabaseUnavailable
        return await claim(database, replica, queue, *args)

    await publish(broker, 100, "broken")
    await publish(broker, 20, "well")
    monkeypatch.setattr(dispatcher.claiming, "claim", failing)
    async with Sharer(broker, shared(Share("broken", 100), Share("well", 1), credits=2)) as worker:
        assert await worker.work_through(20) == {"well": 20}
        monkeypatch.setattr(dispatcher.claiming, "claim", claim)
        await worker.work_through(100)


async def test_a_signal_that_was_lost_starves_no_queue_beside_a_busy_one(broker: Broker) -> None:
    await publish(broker, 200, "busy")
    hidden = await broker.queues.for_publish("hidden")
    async with Sharer(broker, shared(Share("busy"), Share("hidden"), credits=1)) as worker:
        await worker.work_through(5)
        await publishing.publish(broker._database, hidden, jobs(1))
        for _ in range(190):
            # At nearly every moment the one credit is taken.
            await asyncio.sleep(0.05)
            if (await worker.work_through(1))["hidden"]:
                return
    pytest.fail("it was not delivered beside the busy queue's jobs")


async def test_a_limit_per_queue_holds_across_a_resume_elsewhere(replica: Replica) -> None:
    here, there = await replica(), await replica()
    await publish(here, 20, "a")
    await publish(here, 9, "b")
    terms = shared(Share("a", max_in_flight=2), Share("b"), credits=8)
    worker = Worker(here, terms)
    async with worker:
        await leave_it(worker, 8)
        assert Counter(delivery.handle.queue for delivery in worker.deliveries) == {"a": 2, "b": 6}
    held = [delivery.handle for delivery in worker.deliveries]
    async with worker.resume(*held, at=there) as resumed:
        await leave_it(resumed, 0)
        of_b = [handle for handle in held if handle.queue == "b"]
        # At the old owner: the credits return by signal.
        await resumed.ack(*of_b[:3], at=here)
        await leave_it(resumed, 3)
        assert all(delivery.handle.queue == "b" for delivery in resumed.deliveries)
        [one, other] = [handle for handle in held if handle.queue == "a"]
        await resumed.ack(one)
        assert (await resumed.receive(4))[3].handle.queue == "a"
        await leave_it(resumed, 4)
        await resumed.ack(other, at=here)
        assert (await resumed.receive(5))[4].handle.queue == "a"


async def test_a_resumed_session_may_bring_other_shares(broker: Broker) -> None:
    await publish(broker, 10, "a")
    worker = Worker(broker, shared(Share("a", max_in_flight=1)))
    async with worker:
        await leave_it(worker, 1)
    [held] = worker.deliveries
    worker.terms = shared(Share("a", max_in_flight=3))
    async with worker.resume(held.handle) as resumed:
        await leave_it(resumed, 2)


async def test_credits_and_limits_are_never_exceeded(replica: Replica) -> None:
    here, there = await replica(), await replica()
    for queue in ("a", "b", "c"):
        await publish(here if queue == "a" else there, 150, queue)
    terms = shared(Share("a", 5, max_in_flight=3), Share("b", 2), Share("c", 1, max_in_flight=4), credits=7)
    async with Worker(here, terms) as worker:
        done = 0
        while done < 450:
            unfinished = (await worker.receive(done + 1))[done:]
            counts = Counter(delivery.handle.queue for delivery in unfinished)
            assert len(unfinished) <= 7
            assert counts["a"] <= 3
            assert counts["c"] <= 4
            settled = unfinished[: 1 + done % 3]
            await worker.ack(*(delivery.handle for delivery in settled), at=there if done % 2 else here)
            done += len(settled)
    session = here._book.get(worker.opened.session_id)
    assert session is not None
    await until(lambda: not session.in_flight)
    assert session.reserved == 0


async def test_limits_hold_while_a_session_goes_from_replica_to_replica(replica: Replica) -> None:
    brokers = [await replica(), await replica()]
    ids = [job_id for queue in ("a", "b") for job_id in await publish(brokers[0], 80, queue)]
    worker = Worker(brokers[0], shared(Share("a", 2, max_in_flight=2), Share("b"), credits=5))
    held: dict[Handle, None] = {}
    done: list[UUID] = []
    for turn in range(1_000):
        async with worker:
            while len(done) < len(ids):
                await until(lambda: held or worker.deliveries)  # noqa: B023
                held |= dict.fromkeys(delivery.handle for delivery in worker.deliveries)
                worker.deliveries.clear()
                assert len(held) <= 5
                assert sum(handle.queue == "a" for handle in held) <= 2
                settled = list(held)[: 1 + len(done) % 3]
                results = await worker.ack(*settled, at=brokers[len(done) % 2])
                assert all(result.status is AckStatus.APPLIED for result in results)
                done += [handle.job_id for handle in settled]
                held = {handle: None for handle in held if handle not in settled}
                if len(done) % 5 == 0:
                    break
        held |= dict.fromkeys(delivery.handle for delivery in worker.deliveries)
        if len(done) == len(ids):
            break
        worker = worker.resume(*held, at=brokers[turn % 2])
    assert sorted(done) == sorted(ids)


@pytest.mark.parametrize("handed_over", [False, True])
async def test_only_jobs_within_the_priorities_are_delivered(broker: Broker, handed_over: bool) -> None:
    async def store() -> None:
        for priority in (0, 5, 9, 3, -1, 4, 10):
            await publish(broker, 1, priority=priority)

    if not handed_over:
        await store()
    async with Worker(broker, shared(Share("work", min_priority=4, max_priority=9))) as worker:
        if handed_over:
            lanes = broker._dispatcher._narrow["work"].values()
            await until(lambda: all(lane.sessions and not lane.hopeful for lane in lanes))
            await store()
        await leave_it(worker, 3)
        assert sorted(delivery.priority for delivery in worker.deliveries) == [4, 5, 9]
        assert (await broker.queues.counts(["work"]))["work"].ready == 4
        # Who takes anything takes the rest, beside it.
        async with Worker(broker, subscription()) as other:
            await leave_it(other, 4)
            assert [delivery.priority for delivery in other.deliveries] == [10, 3, 0, -1]


async def test_new_jobs_are_handed_to_who_takes_their_priority(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Worker(broker, shared(Share("work", min_priority=5))) as worker:
        lanes = broker._dispatcher._narrow["work"].values()
        await until(lambda: all(lane.sessions and not lane.hopeful and not lane.claiming for lane in lanes))

        async def claim(*_: Any) -> list[Any]:
            return []

        monkeypatch.setattr(dispatcher.claiming, "claim", claim)
        await publish(broker, 2, priority=4)
        ids = await publish(broker, 2, priority=5)
        assert [delivery.handle.job_id for delivery in await worker.receive(2)] == ids
        await leave_it(worker, 2)


async def test_a_retry_comes_back_to_who_takes_its_priority(broker: Broker) -> None:
    [job_id] = await publish(broker, 1, priority=7)
    async with (
        Worker(broker, shared(Share("work", max_priority=6))) as low,
        Worker(broker, shared(Share("work", min_priority=7))) as high,
    ):
        [first] = await high.receive(1)
        await high.ack(first.handle, outcome=Fail("E", "m", "", retry_ms=10))
        again = (await high.receive(2))[1]
        assert (again.handle.job_id, again.attempt) == (job_id, 2)
        # What is given back below the floor of its lane is found as well.
        await publish(broker, 3, priority=8)
        await high.receive(5)
        await settling.give_back(broker._database, [settling.Ending(again.handle, lost=False)])
        broker._dispatcher.wake("work", from_start=True, suspects=True)
        assert (await high.receive(6))[5].attempt == 3
        assert not low.deliveries


async def test_a_suspect_waits_for_who_takes_its_priority(broker: Broker) -> None:
    [job_id] = await publish(broker, 1, priority=7)
    async with Worker(broker, subscription()) as first:
        for times in (1, 2):
            lost = (await first.receive(times))[times - 1]
            if times == 2:
                first.broker._book.get(first.opened.session_id).max_in_flight = 0  # type: ignore[union-attr]
            await settling.give_back(broker._database, [settling.Ending(lost.handle, lost=True)])
            broker._book.settled(broker._book.get(first.opened.session_id), [lost.handle])  # type: ignore[arg-type]
            broker._dispatcher.wake("work", from_start=True, suspects=True)
    assert (await broker.get_job("work", job_id)).state is JobState.RETRY
    async with Worker(broker, shared(Share("work", max_priority=6))) as low:
        await leave_it(low, 0)
        async with Worker(broker, shared(Share("work", min_priority=7))) as high:
            [suspect] = await high.receive(1)
            assert (suspect.handle.job_id, suspect.suspect) == (job_id, True)
            await high.ack(suspect.handle)
        assert not low.deliveries


async def test_jobs_of_other_priorities_keep_nobody_busy(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    claims: Counter[str] = Counter()
    claim, waiting = claiming.claim, claiming.waiting

    async def counted(*args: Any) -> Any:
        claims["claim"] += 1
        return await claim(*args)

    async def looked(*args: Any) -> Any:
        claims["look"] += 1
        return await waiting(*args)

    monkeypatch.setattr(dispatcher.claiming, "claim", counted)
    monkeypatch.setattr(dispatcher.claiming, "waiting", looked)
    async with Worker(broker, shared(Share("work", min_priority=5))) as worker:
        await publish(broker, 20, priority=1)
        await asyncio.sleep(0.5)
        claims.clear()
        # Several looks for what no signal told of, and publishes of what it does not take.
        for _ in range(5):
            await publish(broker, 1, priority=1)
            await asyncio.sleep(0.3)
        assert sum(claims.values()) <= 1, claims
        await publish(broker, 1, priority=5)
        await worker.receive(1)


async def test_a_poll_finds_what_a_part_of_a_queue_takes(broker: Broker) -> None:
    queue = await broker.queues.for_publish("work")
    async with Worker(broker, shared(Share("work", min_priority=5))) as worker:
        await leave_it(worker, 0)
        await publishing.publish(broker._database, queue, jobs(1, priority=4) + jobs(1, priority=6))
        await leave_it(worker, 1)
        assert worker.deliveries[0].priority == 6
