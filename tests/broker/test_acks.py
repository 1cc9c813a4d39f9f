"""One Ack on deliveries of several queues: completions go in one statement, whatever else is said apart from them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from jobwire_server.broker.broker import Broker
from jobwire_server.broker.messages import Ack
from jobwire_server.domain.errors import LockTimeout
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import AckItem, AckStatus, Complete, Extend, Fail, JobState, Outcome
from jobwire_server.store import settling
from tests.conftest import Postgres

from .conftest import Worker, publish, subscription

Replica = Callable[..., Awaitable[Broker]]
QUEUES = ("alpha", "beta", "gamma")


async def delivered(worker: Worker, each: int) -> dict[str, list[Handle]]:
    """What is published to each queue, as it arrives."""
    for queue in QUEUES:
        await publish(worker.broker, each, queue=queue)
    handles = [delivery.handle for delivery in await worker.receive(each * len(QUEUES))]
    return {queue: [handle for handle in handles if handle.queue == queue] for queue in QUEUES}


async def ack(worker: Worker, outcomes: dict[Handle, Outcome]) -> list[AckStatus]:
    items = tuple(AckItem(handle, outcome) for handle, outcome in outcomes.items())
    return [result.status for result in (await worker.broker.ack(Ack(None, items))).results]


async def states(worker: Worker, handles: list[Handle]) -> list[JobState]:
    return [(await worker.broker.get_job(handle.queue, handle.job_id)).state for handle in handles]


async def test_each_job_gets_its_own_outcome_in_its_own_queue(replica: Replica) -> None:
    broker = await replica()
    async with Worker(broker, subscription(*QUEUES, credits=30)) as worker:
        handles = await delivered(worker, 4)
        mixed = [handles[queue][n] for n in (2, 0, 3, 1) for queue in QUEUES]
        said: dict[Handle, Outcome] = {handle: Complete(f'"{n}"') for n, handle in enumerate(mixed)}
        assert await ack(worker, said) == [AckStatus.APPLIED] * 12
        outputs = [(await broker.get_job(handle.queue, handle.job_id)).output for handle in mixed]
        assert outputs == [f'"{n}"' for n in range(12)]


async def test_what_does_not_count_in_one_queue_harms_no_other(replica: Replica) -> None:
    broker = await replica()
    async with Worker(broker, subscription(*QUEUES, credits=30)) as worker:
        handles = await delivered(worker, 2)
        [first, second], [third, fourth], [fifth, sixth] = handles.values()
        assert await ack(worker, {first: Complete(None), fifth: Complete(None)}) == [AckStatus.APPLIED] * 2
        stale = Handle(fourth.queue, fourth.job_id, third.token, 200)
        # A handle is worth nothing in a queue that is not its own.
        elsewhere = Handle("beta", sixth.job_id, sixth.token, sixth.place)
        said: dict[Handle, Outcome] = dict.fromkeys(
            [fifth, stale, second, elsewhere, third, first, sixth], Complete(None)
        )
        assert await ack(worker, said) == [
            AckStatus.ALREADY_APPLIED,
            AckStatus.LEASE_LOST,
            AckStatus.APPLIED,
            AckStatus.NOT_FOUND,
            AckStatus.APPLIED,
            AckStatus.ALREADY_APPLIED,
            AckStatus.APPLIED,
        ]
        assert await states(worker, [fourth]) == [JobState.ACTIVE]


async def test_different_outcomes_in_several_queues(replica: Replica) -> None:
    broker = await replica()
    async with Worker(broker, subscription(*QUEUES, credits=30)) as worker:
        handles = await delivered(worker, 3)
        said: dict[Handle, Outcome] = {}
        for done, failed, running in handles.values():
            said |= {running: Extend(60_000, None), done: Complete(None), failed: Fail("E", "m", "", permanent=True)}
        assert await ack(worker, said) == [AckStatus.APPLIED] * 9
        expected = [JobState.COMPLETED, JobState.FAILED, JobState.ACTIVE]
        assert [await states(worker, mine) for mine in handles.values()] == [expected] * 3


async def test_acks_that_name_queues_in_clashing_orders_do_not_deadlock(replica: Replica, postgres: Postgres) -> None:
    mark = postgres.log_size()
    here, there = await replica(), await replica()
    for _ in range(4):
        async with Worker(here, subscription(*QUEUES, credits=300, grace_ms=0)) as worker:
            handles = [handle for mine in (await delivered(worker, 100)).values() for handle in mine]
            fail = Fail("E", "m", "", permanent=True)
            results = await asyncio.gather(
                worker.ack(*handles),
                worker.ack(*reversed(handles), at=there),
                there.ack(Ack(None, tuple(AckItem(h, (fail, Complete(None))[n % 2]) for n, h in enumerate(handles)))),
                settling.give_back(there._database, [settling.Ending(h, lost=True) for h in reversed(handles)]),
                return_exceptions=True,
            )
            # On a slow machine one may wait for another for longer than a second; it would be repeated.
            failures = [result for result in results if isinstance(result, BaseException)]
            assert all(isinstance(failure, LockTimeout) for failure in failures), failures
    assert [line for line in postgres.errors(mark) if "deadlock" in line] == []
