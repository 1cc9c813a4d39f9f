"""What an operator does to jobs: each change in each state, by id and by filter, against workers and other replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from jobwire_server.broker.broker import Broker
from jobwire_server.broker.operations import Walked
from jobwire_server.domain.errors import NoJobWaits, QueueFull, QueueNotEmpty, QueueNotFound, QueueReferenced
from jobwire_server.domain.jobs import (
    AckStatus,
    Complete,
    Fail,
    Job,
    JobState,
    Labels,
    NewJob,
    Release,
    StopReason,
)
from jobwire_server.domain.operations import Change, ChangeStatus, JobFilter, JobPatch, Order, Walk, WhichJobs
from jobwire_server.domain.queues import JobOptionsPatch, Policy, QueuePatch
from jobwire_server.store.database import Database

from .conftest import Worker, publish, subscription, until

Replica = Callable[..., Awaitable[Broker]]
NOBODY = "tester"
BROKEN = Fail("ValueError", "no such file: A.xlsx", "", permanent=True)


def order(change: Change, queue: str | None = "work", **more: str) -> Order:
    return Order(change, queue, NOBODY, {}, **more)  # type: ignore[arg-type]


async def change(broker: Broker, what: Change, *ids: UUID, queue: str = "work", **more: str) -> list[ChangeStatus]:
    results = await broker.operations.change(queue, ids, order(what, queue, **more))
    assert [result.id for result in results] == list(ids)
    return [result.status for result in results]


async def matching(broker: Broker, what: Change, queue: str | None = "work") -> Walked:
    """All calls that it takes to change all that may be changed so."""
    walk = Walk()
    while True:
        walked = await broker.operations.change_matching(queue, JobFilter(), order(what, queue), walk, dry_run=False)
        if walked.walk.place is None:
            return walked
        walk = walked.walk


async def found(broker: Broker, queue: str | None = "work", **conditions: object) -> list[Job]:
    page = await broker.operations.list_jobs(queue, JobFilter(**conditions), None, 500)  # type: ignore[arg-type]
    assert page.next is None
    return page.jobs


async def state(broker: Broker, job_id: UUID, queue: str = "work") -> JobState:
    return (await broker.get_job(queue, job_id)).state


async def one_of_each(broker: Broker, worker: Worker) -> dict[JobState, UUID]:
    """A job in each state, the active one with `worker`, which has room for one more."""
    first = await publish(broker, 3)
    completed, failed, active = (delivery.handle for delivery in await worker.receive(3))
    await worker.ack(completed, outcome=Complete('"out"'))
    await worker.ack(failed, outcome=BROKEN)
    assert {completed.job_id, failed.job_id, active.job_id} == set(first)
    [scheduled] = await publish(broker, start_in_ms=3_600_000)
    [cancelled] = await publish(broker, start_in_ms=3_600_000)
    [retry] = await publish(broker)
    again = (await worker.receive(4))[3].handle
    await worker.ack(again, outcome=Release(3_600_000))
    await broker.cancel("work", [cancelled])
    ids = {
        JobState.CREATED: scheduled,
        JobState.RETRY: retry,
        JobState.ACTIVE: active.job_id,
        JobState.COMPLETED: completed.job_id,
        JobState.FAILED: failed.job_id,
        JobState.CANCELLED: cancelled,
    }
    for expected, job_id in ids.items():
        assert await state(broker, job_id) is expected
    return ids


AFTER = {
    Change.CANCEL: {JobState.CREATED: JobState.CANCELLED, JobState.RETRY: JobState.CANCELLED},
    Change.RETRY: {JobState.FAILED: JobState.ACTIVE, JobState.CANCELLED: JobState.ACTIVE},
    Change.RESUME: {JobState.CANCELLED: JobState.CREATED},
    Change.DELETE: dict.fromkeys(set(JobState) - {JobState.ACTIVE}, None),
    Change.RELEASE: {JobState.ACTIVE: JobState.ACTIVE},
    Change.MOVE: {JobState.CREATED: JobState.CREATED, JobState.RETRY: JobState.RETRY},
    Change.RUN: {JobState.CREATED: JobState.ACTIVE, JobState.RETRY: JobState.ACTIVE},
    Change.ERASE: {
        JobState.CREATED: JobState.CANCELLED,
        JobState.RETRY: JobState.CANCELLED,
        JobState.COMPLETED: JobState.COMPLETED,
        JobState.FAILED: JobState.FAILED,
        JobState.CANCELLED: JobState.CANCELLED,
    },
}
"""What state a job is in after a change; a state that is not named does not allow it. None: it is gone."""


@pytest.mark.parametrize("what", Change)
async def test_each_change_in_each_state(broker: Broker, what: Change) -> None:
    await broker.queues.for_publish("elsewhere")
    async with Worker(broker, subscription(credits=5)) as worker:
        ids = await one_of_each(broker, worker)
        unknown = UUID(int=5)
        destination = {"destination": "elsewhere"} if what is Change.MOVE else {}
        would = await broker.operations.would_change("work", [*ids.values(), unknown], what)
        statuses = await change(broker, what, *ids.values(), unknown, **destination)
        assert statuses[-1] is ChangeStatus.NOT_FOUND
        assert [result.status.done for result in would] == [status.done for status in statuses]
        for (before, job_id), status in zip(ids.items(), statuses, strict=False):
            if what is Change.CANCEL and before is JobState.ACTIVE:
                assert status is ChangeStatus.REQUESTED
            elif before not in AFTER[what]:
                assert status is ChangeStatus.WRONG_STATE
                assert await state(broker, job_id) is before
            else:
                assert status is ChangeStatus.CHANGED
                after = AFTER[what][before]
                if after is None:
                    assert job_id not in {job.id for job in await found(broker, None)}
                elif what is Change.MOVE:
                    assert await state(broker, job_id, "elsewhere") is after
                elif what in (Change.RUN, Change.RELEASE, Change.RETRY):
                    # The worker has room for more.
                    await until(lambda job_id=job_id: job_id in {d.handle.job_id for d in worker.deliveries[4:]})
                else:
                    assert await state(broker, job_id) is after


async def test_a_retried_job_has_all_its_retries_again_and_no_old_lease(broker: Broker) -> None:
    [job_id] = await publish(broker, options=JobOptionsPatch(retry_limit=1, retry_delay_ms=0))
    async with Worker(broker, subscription(credits=1)) as worker:
        for run in (1, 2):
            old = (await worker.receive(run))[-1].handle
            await worker.ack(old, outcome=Fail("E", f"run {run}", ""))
        assert await state(broker, job_id) is JobState.FAILED
        assert await change(broker, Change.RETRY, job_id) == [ChangeStatus.CHANGED]
        [_, _, again] = await worker.receive(3)
        assert (again.handle.job_id, again.attempt, again.retry_count) == (job_id, 3, 0)
        [late] = await worker.ack(old)
        assert late.status in (AckStatus.ALREADY_APPLIED, AckStatus.LEASE_LOST)
        await worker.ack(again.handle)
    job = await broker.get_job("work", job_id)
    assert (job.state, [error.message for error in job.errors]) == (JobState.COMPLETED, ["run 1", "run 2"])
    assert len(await found(broker)) == 1


async def test_a_resumed_job_goes_on_as_it_was(broker: Broker) -> None:
    later, tried = (await publish(broker, start_in_ms=3_600_000))[0], (await publish(broker))[0]
    async with Worker(broker, subscription(credits=1)) as worker:
        [delivery] = await worker.receive(1)
        await worker.ack(delivery.handle, outcome=Fail("E", "m", "", retry_ms=3_600_000))
        before = [await broker.get_job("work", job_id) for job_id in (later, tried)]
        await broker.cancel("work", [later, tried])
        assert await change(broker, Change.RESUME, later, tried) == [ChangeStatus.CHANGED] * 2
        [waiting, _] = [await broker.get_job("work", job_id) for job_id in (later, tried)]
        assert (waiting.state, waiting.start_after) == (JobState.CREATED, before[0].start_after)
        [_, again] = await worker.receive(2)
        assert (again.handle.job_id, again.retry_count, again.attempt) == (tried, 1, 2)


async def test_who_was_not_told_that_its_job_was_released_is_told_at_last(replica: Replica) -> None:
    here, there = await replica(), await replica()
    there._signals._send = lambda *_: None  # type: ignore[method-assign]
    [job_id] = await publish(here)
    async with Worker(here, subscription(credits=1)) as worker:
        [delivery] = await worker.receive(1)
        assert await change(there, Change.RELEASE, job_id) == [ChangeStatus.CHANGED]
        await until(lambda: worker.cancellations)
        [told] = worker.cancellations
        assert (told.handle, told.reason) == (delivery.handle, StopReason.LEASE_LOST)


async def test_a_released_job_goes_to_another_worker_and_its_old_one_is_told(replica: Replica) -> None:
    here, there = await replica(), await replica()
    [job_id] = await publish(here)
    async with Worker(here, subscription(credits=1)) as first:
        [old] = await first.receive(1)
        async with Worker(there, subscription(credits=1)) as second:
            assert await change(there, Change.RELEASE, job_id) == [ChangeStatus.CHANGED]
            [new] = await second.receive(1)
            assert (new.handle.job_id, new.attempt, new.retry_count) == (job_id, 2, 0)
            await until(lambda: first.cancellations)
            assert (first.cancellations[0].handle, first.cancellations[0].reason) == (old.handle, StopReason.LEASE_LOST)
            assert [result.status for result in await first.ack(old.handle)] == [AckStatus.LEASE_LOST]
            assert [result.status for result in await second.ack(new.handle)] == [AckStatus.APPLIED]


async def test_a_moved_job_is_delivered_from_where_it_went(broker: Broker) -> None:
    other = await broker.queues.for_publish("other")
    first, second, taken = await publish(broker, 3)
    await broker.publish(other, [NewJob(taken, "1")])
    statuses = await change(broker, Change.MOVE, first, second, taken, destination="other")
    assert statuses == [ChangeStatus.CHANGED, ChangeStatus.CHANGED, ChangeStatus.ID_TAKEN]
    assert await state(broker, taken) is JobState.CREATED
    async with Worker(broker, subscription("other")) as worker:
        delivered = [delivery.handle.job_id for delivery in await worker.receive(3)]
    # The one that was there was stored after them.
    assert delivered == [first, second, taken]
    with pytest.raises(QueueNotFound):
        await change(broker, Change.MOVE, taken, destination="nowhere")


async def test_erasing_leaves_the_skeleton(broker: Broker) -> None:
    [job_id] = await publish(broker, headers='{"user": "7"}')
    async with Worker(broker, subscription(credits=1)) as worker:
        [delivery] = await worker.receive(1)
        assert await change(broker, Change.ERASE, job_id) == [ChangeStatus.WRONG_STATE]
        await worker.ack(delivery.handle, outcome=Complete('{"name": "Ann"}'))
    before = await broker.get_job("work", job_id)
    assert await change(broker, Change.ERASE, job_id) == [ChangeStatus.CHANGED]
    after = await broker.get_job("work", job_id)
    assert (after.data, after.headers, after.output, after.errors, after.progress) == ("null", None, None, (), None)
    assert (after.state, after.created_at, after.finished_at) == (before.state, before.created_at, before.finished_at)


async def test_a_filter_is_worked_off_in_bounded_calls_with_one_record(broker: Broker) -> None:
    ids = sorted(await publish(broker, 25), reverse=True)
    operations = broker.operations
    operations.call_seconds, operations.window, operations.batch = 0.0, 10, 4
    counted = await operations.change_matching("work", JobFilter(), order(Change.DELETE), Walk(), dry_run=True)
    assert (counted.walk.matched, counted.walk.place is None, counted.looked_at) == (10, False, 10)
    calls, walk = 0, Walk(left=13)
    while True:
        walked = await operations.change_matching("work", JobFilter(), order(Change.DELETE), walk, dry_run=False)
        walk, calls = walked.walk, calls + 1
        if walk.place is None:
            break
    assert (walk.matched, walk.changed, walk.left, calls) == (13, 13, 0, 4)
    assert [job.id for job in await self_listed(broker)] == ids[13:]
    [record] = await operations.list_actions("work", None, None, 10)
    assert (record.what, record.actor, record.matched, record.changed) == ("job.delete", NOBODY, 13, 13)


async def self_listed(broker: Broker) -> list[Job]:
    """All jobs of the queue, however many calls that takes."""
    jobs: list[Job] = []
    place = None
    while True:
        page = await broker.operations.list_jobs("work", JobFilter(), place, 7)
        jobs += page.jobs
        if page.next is None:
            return jobs
        place = page.next


async def test_pages_hold_each_job_once_in_order_whatever_is_looked_at_at_once(broker: Broker) -> None:
    ids = await publish(broker, 60)
    async with Worker(broker, subscription(credits=40)) as worker:
        deliveries = list(await worker.receive(40))
        done = [delivery.handle for delivery in deliveries[::2]]
        await worker.ack(*done)
        await worker.receive(60)
        for window in (3, 8, 1_000):
            broker.operations.window = window
            assert [job.id for job in await self_listed(broker)] == sorted(ids, reverse=True)


async def test_all_queues_are_walked_by_name(broker: Broker) -> None:
    ids = {queue: sorted(await publish(broker, 5, queue=queue), reverse=True) for queue in ("c", "a", "b")}
    page = await broker.operations.list_jobs(None, JobFilter(), None, 7)
    rest = await broker.operations.list_jobs(None, JobFilter(), page.next, 500)
    expected = [job_id for queue in "abc" for job_id in ids[queue]]
    assert [job.id for job in page.jobs] == expected[:7]
    assert ([job.id for job in rest.jobs], rest.next) == (expected[7:], None)
    walked = await matching(broker, Change.CANCEL, queue=None)
    assert (walked.walk.matched, walked.walk.changed) == (15, 15)


async def test_what_a_filter_finds(broker: Broker) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    async with Worker(broker, subscription(credits=4)) as worker:
        ids = await one_of_each(broker, worker)
        [urgent] = await publish(broker, priority=9, start_in_ms=3_600_000)
        special = UUID(int=uuid7().int)
        data = '{"user": {"id": 7}, "tags": ["a", "b"]}'
        await broker.publish(await broker.queues.find("work"), [NewJob(special, data, start_in_ms=3_600_000)])
        for expected, job_id in ids.items():
            also = {urgent, special} if expected is JobState.CREATED else set()
            assert {job.id for job in await found(broker, states=frozenset({expected}))} == {job_id} | also
        finished = {ids[state] for state in JobState if state.finished}

        async def ids_of(**conditions: object) -> set[UUID]:
            return {job.id for job in await found(broker, **conditions)}

        everything = {*ids.values(), urgent, special}
        assert await ids_of() == everything
        assert await ids_of(priority_from=1) == {urgent}
        assert await ids_of(priority_to=8) == everything - {urgent}
        assert await ids_of(priority_from=9, priority_to=9) == {urgent}
        assert await ids_of(error_type="ValueError") == {ids[JobState.FAILED]}
        assert await ids_of(error_text="NO SUCH") == {ids[JobState.FAILED]}
        assert await ids_of(error_type="ValueError", error_text="other") == set()
        assert await ids_of(contains='{"user": {"id": 7}}') == {special}
        assert await ids_of(contains='{"tags": ["b"]}', states=frozenset({JobState.CREATED})) == {special}
        assert await ids_of(created_from=before) == everything
        assert await ids_of(created_before=before) == set()
        assert await ids_of(finished_from=before) == finished
        assert await ids_of(finished_before=before) == set()
        ran = {ids[state] for state in (JobState.COMPLETED, JobState.FAILED, JobState.ACTIVE, JobState.RETRY)}
        assert await ids_of(worker="test-worker") == ran
        assert await ids_of(worker="nobody") == set()


async def test_counts_say_how_far_they_are_exact(broker: Broker, database: Database) -> None:
    await publish(broker, 3)
    await publish(broker, 2, start_in_ms=3_600_000)
    async with Worker(broker, subscription(credits=2)) as worker:
        first, _ = await worker.receive(2)
        await worker.ack(first.handle, outcome=BROKEN)
        await worker.receive(3)
    counts = (await broker.queues.counts(["work"]))["work"]
    assert (counts.scheduled, counts.failed, counts.ready + counts.active) == (2, 1, 2)
    assert counts.exact_up_to == 10_000
    many = await broker.queues.counts([f"queue-{n}" for n in range(300)])
    assert {counts.exact_up_to for counts in many.values()} == {100}
    assert {counts.oldest_ready_ms for counts in many.values()} == {None}


async def test_beyond_the_bound_an_estimate_stands(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobwire_server.store import queues  # noqa: PLC0415

    for _ in range(3):
        await publish(broker, 1_000)
    monkeypatch.setattr(queues, "_COUNTED_MOST", 200)
    monkeypatch.setattr(queues, "_COUNTED_LEAST", 200)
    counts = (await broker.queues.counts(["work"]))["work"]
    assert (counts.exact_up_to, counts.scheduled, counts.active) == (200, 0, 0)
    assert counts.ready > 200
    assert counts.oldest_ready_ms is not None and counts.oldest_ready_ms < 60_000


async def test_operators_and_workers_at_once_leave_each_job_in_one_place(replica: Replica, database: Database) -> None:
    """On two replicas, against workers that complete and fail: nothing deadlocks, and what was answered is so."""
    here, there = await replica(), await replica()
    await here.queues.for_publish("other")
    ids = await publish(here, 300)
    results: list[tuple[Change, dict[UUID, ChangeStatus]]] = []

    async def act(broker: Broker, what: Change, mine: Sequence[UUID], **more: str) -> None:
        done = await change(broker, what, *mine, **more)
        results.append((what, dict(zip(mine, done, strict=True))))

    async with Worker(here, subscription(credits=40)) as first, Worker(there, subscription(credits=40)) as second:
        stop = asyncio.Event()

        async def work(worker: Worker) -> None:
            settled = 0
            while not stop.is_set():
                for delivery in worker.deliveries[settled:]:
                    settled += 1
                    last = delivery.handle.job_id.int % 2
                    await worker.ack(delivery.handle, outcome=Complete(None) if last else BROKEN)
                await asyncio.sleep(0.001)

        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(work(worker)) for worker in (first, second)]
            async with asyncio.TaskGroup() as operators:
                for step in range(0, 300, 50):
                    mine = ids[step : step + 50]
                    operators.create_task(act(here, Change.CANCEL, mine))
                    operators.create_task(act(there, Change.DELETE, mine[::-1]))
                    operators.create_task(act(here, Change.RELEASE, mine))
                    operators.create_task(act(there, Change.RETRY, mine))
                    operators.create_task(act(here, Change.MOVE, mine[::3], destination="other"))
            await asyncio.sleep(0.5)
            stop.set()
            await asyncio.gather(*workers)
    for what, statuses in results:
        if what is Change.DELETE:
            deleted = {job_id for job_id, status in statuses.items() if status.done}
            left = {job.id for job in [*await found(here), *await found(here, "other")]}
            assert not deleted & left
    live = {job.id for job in await found(here, None) if not job.state.finished}
    waiting = await here.queues.counts(["work", "other"])
    assert sum(counts.ready + counts.scheduled + counts.active for counts in waiting.values()) == len(live)
    everything = [job.id for job in await found(here, None)]
    assert len(everything) == len(set(everything))


async def test_two_replicas_retry_a_job_once(replica: Replica) -> None:
    here, there = await replica(), await replica()
    ids = await publish(here, 40, start_in_ms=3_600_000)
    await here.cancel("work", ids)
    both = await asyncio.gather(change(here, Change.RETRY, *ids), change(there, Change.RETRY, *ids))
    for mine, other in zip(*both, strict=True):
        assert {mine, other} == {ChangeStatus.CHANGED, ChangeStatus.WRONG_STATE}
    assert (await here.queues.counts(["work"]))["work"].ready == 40


async def test_waiting_jobs_are_updated_and_others_are_not(broker: Broker) -> None:
    queue = await broker.queues.for_publish("work")
    [first] = await publish(broker, start_in_ms=3_600_000)
    [second] = await publish(broker)
    patch = JobPatch(first, data='"new"', priority=5, start_in_ms=0, options=JobOptionsPatch(retry_limit=9))
    assert (await broker.operations.update(queue, patch, None, NOBODY)).ids == [first]
    async with Worker(broker, subscription(credits=1)) as worker:
        [delivery] = await worker.receive(1)
        # The higher priority is first now, though it was to come in an hour.
        assert (delivery.handle.job_id, delivery.data, delivery.retry_limit) == (first, '"new"', 9)
        with pytest.raises(NoJobWaits):
            await broker.operations.update(queue, JobPatch(first, data="1"), None, NOBODY)
    assert await state(broker, second) is JobState.CREATED


async def test_an_update_that_is_answered_is_what_is_delivered(replica: Replica) -> None:
    here, there = await replica(), await replica()
    queue = await here.queues.for_publish("work")
    ids = await publish(here, 60)
    async with Worker(there, subscription(credits=60)) as worker:

        async def update(job_id: UUID) -> UUID | None:
            try:
                await here.operations.update(queue, JobPatch(job_id, data='"new"'), None, NOBODY)
            except NoJobWaits:
                return None
            return job_id

        updated = set(await asyncio.gather(*map(update, ids))) - {None}
        deliveries = await worker.receive(60)
    assert {delivery.handle.job_id for delivery in deliveries if delivery.data == '"new"'} == updated


async def test_an_upsert_stores_a_job_if_none_waits(replica: Replica) -> None:
    here, there = await replica(), await replica()
    queue = await here.queues.for_publish("work")
    job_id = UUID(int=uuid7().int)
    patch, job = JobPatch(job_id, data="2"), NewJob(job_id, "2", start_in_ms=3_600_000)
    both = await asyncio.gather(
        *(broker.operations.update(queue, patch, job, NOBODY) for broker in (here, there)), return_exceptions=True
    )
    assert [getattr(answer, "created", None) for answer in both].count(job_id) == 1
    assert (await here.operations.update(queue, patch, job, NOBODY)).ids == [job_id]
    assert [job.data for job in await found(here)] == ["2"]
    await here.queues.update("work", QueuePatch(max_depth=1))
    other = UUID(int=uuid7().int)
    with pytest.raises(QueueFull):
        await here.operations.update(await here.queues.find("work"), JobPatch(other), NewJob(other, "1"), NOBODY)


async def delete(broker: Broker, *, force: bool = False) -> int:
    """All calls that it takes to delete the queue; how many jobs went with it."""
    removal = None
    while removal is None or removal.step is not None:
        removal = await broker.queue_removal.delete("work", removal, NOBODY, force=force)
    return removal.jobs


async def refusal(broker: Broker) -> str:
    """Why the queue cannot be deleted."""
    with pytest.raises(QueueReferenced) as refused:
        await delete(broker)
    return refused.value.message


async def test_a_queue_in_use_is_not_deleted(broker: Broker) -> None:
    [job_id] = await publish(broker)
    with pytest.raises(QueueNotEmpty):
        await delete(broker)
    await change(broker, Change.CANCEL, job_id)
    async with Worker(broker, subscription(grace_ms=0)):
        with pytest.raises(QueueReferenced, match="1 session"):
            await delete(broker)
    other = QueuePatch(JobOptionsPatch(dead_letter="work"))
    await broker.queues.for_publish("other")
    await broker.change_queue("other", other, NOBODY)
    while "session" in (why := await refusal(broker)):
        await asyncio.sleep(0.05)
    assert "dead letters of other" in why
    await delete(broker, force=True)
    assert (await broker.queues.find("other")).options.dead_letter is None


async def test_a_deleted_queue_is_gone_with_its_finished_jobs(broker: Broker) -> None:
    ids = await publish(broker, 3)
    await broker.cancel("work", ids)
    assert await delete(broker) == 3
    with pytest.raises(QueueNotFound):
        await broker.queues.find("work")
    assert await found(broker, None) == []
    assert [action.what for action in await broker.operations.list_actions("work", None, None, 1)] == ["queue.delete"]


async def test_by_force_running_jobs_go_too(broker: Broker) -> None:
    await publish(broker, 5)
    async with Worker(broker, subscription(credits=2)) as worker:
        running, _ = await worker.receive(2)
        assert await delete(broker, force=True) == 5
        [late] = await worker.ack(running.handle)
        assert late.status in (AckStatus.NOT_FOUND, AckStatus.LEASE_LOST)
    assert (await broker.queues.counts(["work"]))["work"].active == 0


async def gone(broker: Broker) -> None:
    """Returns when the queue is gone."""
    while True:
        try:
            await broker.queues.find("work")
        except QueueNotFound:
            return
        await asyncio.sleep(0.01)


async def test_a_queue_for_which_a_transaction_stored_jobs_meanwhile_is_put_back(
    broker: Broker, database: Database
) -> None:
    await broker.queues.for_publish("work")
    await broker.queues.update("work", QueuePatch(max_data_bytes=777, policy=Policy.SINGLETON))
    publish_in_sql = f"SELECT \"{database.schema}\".publish('work', '{{}}')".encode()
    async with database.transaction() as connection:
        await connection.execute(publish_in_sql)
        deleting = asyncio.create_task(delete(broker))
        await gone(broker)
    with pytest.raises(QueueNotEmpty):
        await deleting
    queue = await broker.queues.find("work")
    assert (queue.max_data_bytes, queue.policy) == (777, Policy.SINGLETON)
    async with Worker(broker, subscription(credits=1)) as worker:
        await worker.receive(1)


async def test_a_queue_that_is_published_to_while_it_is_deleted_is_a_new_one(replica: Replica) -> None:
    here, there = await replica(), await replica()
    await here.queues.for_publish("work")
    await here.queues.update("work", QueuePatch(max_data_bytes=777))
    known = await there.queues.for_publish("work")
    deleting = asyncio.create_task(delete(here))
    await gone(here)
    [published] = await there.publish(known, [NewJob(UUID(int=uuid7().int), "1")])
    assert await deleting == 0
    assert (await there.queues.find("work")).max_data_bytes == 65_536
    assert await state(there, published.id) is JobState.CREATED


async def test_what_operators_do_is_recorded(broker: Broker) -> None:
    await broker.queues.create((await broker.queues.for_publish("work")), "ann")
    await broker.queues.update("work", QueuePatch(max_depth=7), "bob")
    [job_id] = await publish(broker)
    await broker.cancel("work", [job_id], "cid")
    actions = await broker.operations.list_actions(None, None, None, 10)
    assert [(action.actor, action.what) for action in actions] == [("cid", "job.cancel"), ("bob", "queue.update")]
    assert actions[0].selection == {"ids": [str(job_id)]}
    assert actions[1].selection == {"max_depth": 7}
    assert [action.actor for action in await broker.operations.list_actions(None, "bob", None, 10)] == ["bob"]
    assert await broker.operations.list_actions("other", None, None, 10) == []


async def keyed(broker: Broker, key: str, count: int = 1, **more: object) -> list[UUID]:
    """Publishes jobs of a key."""
    return await publish(broker, count, labels=Labels(key=key, group=f"group of {key}"), **more)


async def test_jobs_are_found_by_key_and_group_and_erased_by_key(broker: Broker) -> None:
    await publish(broker, 3)
    mine = await keyed(broker, "ann", 4)
    await keyed(broker, "bob", 2)
    await broker.cancel("work", mine[:2])
    for conditions in ({"key": "ann"}, {"group": "group of ann"}):
        assert {job.id for job in await found(broker, **conditions)} == set(mine)
        assert {job.id for job in await found(broker, None, **conditions)} == set(mine)
    assert [job.id for job in await found(broker, key="ann")] == sorted(mine, reverse=True)
    wanted = JobFilter(key="ann")
    counted = await broker.operations.change_matching("work", wanted, order(Change.ERASE), Walk(), dry_run=True)
    assert counted.walk.matched == 4
    done = await broker.operations.change_matching("work", wanted, order(Change.ERASE), Walk(left=4), dry_run=False)
    assert (done.walk.changed, done.walk.left) == (4, 0)
    assert {(job.data, job.state) for job in await found(broker, key="ann")} == {("null", JobState.CANCELLED)}
    assert all(job.data != "null" for job in await found(broker, key="bob"))


async def test_newest_oldest_or_all_jobs_of_a_key_are_updated(broker: Broker) -> None:
    queue = await broker.queues.for_publish("work")
    first, second, third = [(await keyed(broker, "k", start_in_ms=3_600_000))[0] for _ in range(3)]
    for which, expected in (
        (WhichJobs.NEWEST, {third}),
        (WhichJobs.OLDEST, {first}),
        (WhichJobs.ALL, {first, second, third}),
    ):
        patch = JobPatch(key="k", which=which, data=f'"{which.name}"')
        assert set((await broker.operations.update(queue, patch, None, NOBODY)).ids) == expected
    with pytest.raises(NoJobWaits):
        await broker.operations.update(queue, JobPatch(key="none", data="1"), None, NOBODY)


async def test_upserts_of_a_key_on_two_replicas_store_one_job(replica: Replica) -> None:
    here, there = await replica(), await replica()
    queue = await here.queues.for_publish("work")

    async def upsert(broker: Broker, number: int) -> bool:
        job = NewJob(UUID(int=uuid7().int), str(number), False, labels=Labels(key="k"))
        updated = await broker.operations.update(queue, JobPatch(key="k", data=str(number)), job, NOBODY)
        return updated.created is not None

    created = await asyncio.gather(*(upsert((here, there)[number % 2], number) for number in range(12)))
    assert created.count(True) == 1
    assert len(await found(here, key="k")) == 1


@pytest.mark.parametrize("policy", [Policy.SINGLETON, Policy.KEY_STRICT_FIFO])
async def test_what_comes_back_to_wait_passes_the_gates(broker: Broker, policy: Policy) -> None:
    """One of a key runs at a time, whichever way the others came to wait."""
    await broker.queues.for_publish("work")
    await broker.change_queue("work", QueuePatch(policy=policy), NOBODY)
    queue = await broker.queues.find("work")
    moved = await publish(broker, 2, queue="plain", labels=Labels(key="k"))
    back = (await keyed(broker, "k"))[0]
    await broker.cancel("work", [back])
    assert set(await change(broker, Change.MOVE, *moved, queue="plain", destination="work")) == {ChangeStatus.CHANGED}
    assert await change(broker, Change.RESUME, back) == [ChangeStatus.CHANGED]
    async with Worker(broker, subscription(credits=10)) as worker:
        [running] = await worker.receive(1)
        waiting = {*moved, back} - {running.handle.job_id}
        for job_id in waiting:
            await broker.operations.update(queue, JobPatch(job_id, data='"new"'), None, NOBODY)
        assert await change(broker, Change.RELEASE, running.handle.job_id) == [ChangeStatus.CHANGED]
        for done in range(3):
            delivery = (await worker.receive(done + 2))[-1]
            await asyncio.sleep(0.3)
            assert len(worker.deliveries) == done + 2
            assert [result.status for result in await worker.ack(delivery.handle)] == [AckStatus.APPLIED]
        assert {delivery.data for delivery in worker.deliveries if delivery.handle.job_id in waiting} == {'"new"'}


async def test_a_job_without_a_key_does_not_go_where_each_must_have_one(broker: Broker) -> None:
    await broker.queues.for_publish("ordered")
    await broker.change_queue("ordered", QueuePatch(policy=Policy.KEY_STRICT_FIFO), NOBODY)
    [plain], [labelled] = await publish(broker), await keyed(broker, "k")
    statuses = await change(broker, Change.MOVE, plain, labelled, destination="ordered")
    assert statuses == [ChangeStatus.KEY_TAKEN, ChangeStatus.CHANGED]
    assert await state(broker, plain) is JobState.CREATED


async def test_an_exclusive_key_is_not_doubled_by_a_retry(broker: Broker) -> None:
    await broker.queues.for_publish("work")
    await broker.change_queue("work", QueuePatch(policy=Policy.EXCLUSIVE), NOBODY)
    [first] = await keyed(broker, "k")
    await broker.cancel("work", [first])
    [second] = await keyed(broker, "k")
    assert await change(broker, Change.RETRY, first) == [ChangeStatus.KEY_TAKEN]
    await broker.cancel("work", [second])
    # Of two at once only one.
    assert sorted(await change(broker, Change.RESUME, first, second)) == [ChangeStatus.CHANGED, ChangeStatus.KEY_TAKEN]
    queue = await broker.queues.find("work")
    [refused] = await broker.publish(queue, [NewJob(UUID(int=uuid7().int), "1", labels=Labels(key="k"))])
    assert not refused.created


async def test_a_deleted_failed_job_holds_up_its_key_no_longer(broker: Broker) -> None:
    await broker.queues.for_publish("work")
    await broker.change_queue("work", QueuePatch(policy=Policy.KEY_STRICT_FIFO), NOBODY)
    async with Worker(broker, subscription(credits=10)) as worker:
        [first] = await keyed(broker, "k")
        [delivery] = await worker.receive(1)
        [second] = await keyed(broker, "k")
        await worker.ack(delivery.handle, outcome=BROKEN)
        while [job.id for job in await found(broker, states=frozenset({JobState.BLOCKED}))] != [second]:
            await asyncio.sleep(0.01)
        assert await change(broker, Change.RETRY, first) == [ChangeStatus.CHANGED]
        [_, again] = await worker.receive(2)
        assert again.handle.job_id == first
        await worker.ack(again.handle, outcome=BROKEN)
        assert await change(broker, Change.DELETE, first) == [ChangeStatus.CHANGED]
        [_, _, last] = await worker.receive(3)
        assert last.handle.job_id == second
    assert (await broker.queues.counts(["work"]))["work"].blocked == 0
