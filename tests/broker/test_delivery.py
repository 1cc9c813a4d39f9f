"""What section "Delivery" promises, at the broker: leases, order, credits, Acks, retries, cancels, limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from jobwire_server.broker.broker import Broker
from jobwire_server.broker.messages import Ack
from jobwire_server.domain.errors import JobNotFound
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import (
    AckItem,
    AckStatus,
    CancelStatus,
    Complete,
    Extend,
    Fail,
    JobState,
    NewJob,
    Progress,
    Release,
    StopReason,
)
from jobwire_server.domain.operations import JobFilter
from jobwire_server.domain.queues import JobOptionsPatch

from .conftest import Worker, jobs, publish, subscription, until

FAIL = Fail("ValueError", "broken", "trace")


async def state(broker: Broker, job_id: UUID) -> JobState:
    return (await broker.get_job("work", job_id)).state


async def test_a_job_goes_its_way(broker: Broker) -> None:
    [job_id] = await publish(broker)
    assert await state(broker, job_id) is JobState.CREATED
    async with Worker(broker, subscription()) as worker:
        [delivery] = await worker.receive(1)
        assert (delivery.data, delivery.attempt, delivery.retry_count) == ('{"n":0}', 1, 0)
        running = await broker.get_job("work", job_id)
        assert (running.state, running.worker, running.session_id) == (
            JobState.ACTIVE,
            "test-worker",
            worker.opened.session_id,
        )
        [result] = await worker.ack(delivery.handle, outcome=Complete('{"rows": 3}'))
        assert (result.status, result.state) == (AckStatus.APPLIED, JobState.COMPLETED)
    done = await broker.get_job("work", job_id)
    assert (done.state, done.output, done.attempt, done.worker) == (JobState.COMPLETED, '{"rows": 3}', 1, "test-worker")
    assert (
        done.started_at is not None
        and done.finished_at is not None
        and done.created_at <= done.started_at <= done.finished_at
    )


async def test_order_is_priority_then_publication(broker: Broker) -> None:
    queue = await broker.queues.for_publish("work")
    await broker.publish(queue, [NewJob(uuid4(), str(n), priority=n % 3) for n in range(30)])
    async with Worker(broker, subscription(credits=7)) as worker:
        for round_ in range(1, 31):
            delivery = (await worker.receive(round_))[round_ - 1]
            await worker.ack(delivery.handle)
    got = [int(delivery.data) for delivery in worker.deliveries]
    assert got == sorted(range(30), key=lambda n: (-(n % 3), n))


async def test_a_higher_priority_published_later_goes_first(broker: Broker) -> None:
    async with Worker(broker, subscription(credits=1)) as worker:
        await publish(broker, 3)
        await worker.receive(1)
        [urgent] = await publish(broker, 1, priority=5)
        await worker.ack(worker.deliveries[0].handle)
        await worker.receive(2)
        assert worker.deliveries[1].handle.job_id == urgent


async def test_never_more_in_flight_than_credits_over_queues(broker: Broker) -> None:
    for queue in ("a", "b", "c"):
        await publish(broker, 20, queue)
    settled = 0
    async with Worker(broker, subscription("a", "b", "c", credits=4)) as worker:
        while settled < 60:
            await worker.receive(settled + 1)
            assert len(worker.deliveries) - settled <= 4
            await worker.ack(worker.deliveries[settled].handle)
            settled += 1
    assert len({delivery.handle.job_id for delivery in worker.deliveries}) == 60


async def test_credits_can_be_changed_and_zero_is_quiet(broker: Broker) -> None:
    async with Worker(broker, subscription(credits=1)) as worker:
        await broker.ack(Ack(worker.opened.session_id, (), 1, max_in_flight=0))
        ids = await publish(broker, 3)
        await asyncio.sleep(0.5)
        assert worker.deliveries == []
        await broker.ack(Ack(worker.opened.session_id, (), 1, max_in_flight=2))
        await worker.receive(2)
        assert [delivery.handle.job_id for delivery in worker.deliveries] == ids[:2]


async def test_a_repeated_ack_is_already_applied(broker: Broker) -> None:
    [job_id, retried, released] = await publish(broker, 3)
    async with Worker(broker, subscription()) as worker:
        first, second, third = await worker.receive(3)
        for handle, outcome, later in (
            (first.handle, Complete(None), JobState.COMPLETED),
            (second.handle, replace(FAIL, retry_ms=60_000), JobState.RETRY),
            (third.handle, Release(60_000), JobState.RETRY),
        ):
            assert (await worker.ack(handle, outcome=outcome))[0].status is AckStatus.APPLIED
            [again] = await worker.ack(handle, outcome=outcome)
            assert (again.status, again.state) == (AckStatus.ALREADY_APPLIED, later)
    assert [await state(broker, i) for i in (job_id, retried, released)] == [
        JobState.COMPLETED,
        JobState.RETRY,
        JobState.RETRY,
    ]


async def test_a_stale_or_foreign_lease_changes_nothing(broker: Broker) -> None:
    [one, other] = await publish(broker, 2)
    async with Worker(broker, subscription()) as worker:
        first, second = await worker.receive(2)
        await worker.ack(first.handle, outcome=Release(0))
        newer = (await worker.receive(3))[2]
        assert newer.handle.job_id == one and newer.attempt == 2
        stale = first.handle
        foreign = Handle("work", other, newer.handle.token, newer.handle.place)
        beyond = Handle("work", other, second.handle.token, 99)
        made_up = Handle("work", one, uuid4(), 1)
        unknown = Handle("work", uuid4(), newer.handle.token, 1)
        elsewhere = Handle("other", one, newer.handle.token, newer.handle.place)
        for outcome in (Complete(None), FAIL, Release(None), Extend(1_000, None)):
            results = await worker.ack(foreign, beyond, made_up, unknown, elsewhere, outcome=outcome)
            assert [result.status for result in results] == [AckStatus.LEASE_LOST] * 3 + [AckStatus.NOT_FOUND] * 2
            [late] = await worker.ack(stale, outcome=outcome)
            # It is known as the delivery that was released; it changes nothing all the same.
            assert late.status is AckStatus.ALREADY_APPLIED
        assert await state(broker, one) is JobState.ACTIVE and await state(broker, other) is JobState.ACTIVE
        assert [r.status for r in await worker.ack(newer.handle, second.handle)] == [AckStatus.APPLIED] * 2


async def test_a_token_is_good_for_its_own_jobs_alone(broker: Broker) -> None:
    """A live token and a right attempt, with the id of another session's job, or of one that nobody has."""
    await publish(broker, 3)
    async with Worker(broker, subscription(credits=1)) as one, Worker(broker, subscription(credits=1)) as other:
        [mine], [theirs] = await one.receive(1), await other.receive(1)
        created = JobFilter(states=frozenset({JobState.CREATED}))
        [waiting] = [job.id for job in (await broker.operations.list_jobs("work", created, None, 10)).jobs]
        for job_id in (theirs.handle.job_id, waiting):
            for outcome in (Complete(None), FAIL, Release(None), Extend(1_000, None)):
                [result] = await one.ack(
                    Handle(mine.handle.queue, job_id, mine.handle.token, mine.handle.place), outcome=outcome
                )
                assert result.status is AckStatus.LEASE_LOST
        assert (await other.ack(theirs.handle))[0].status is AckStatus.APPLIED
        assert await state(broker, waiting) in (JobState.CREATED, JobState.ACTIVE)


async def test_what_is_said_of_one_delivery_is_applied_in_order(broker: Broker) -> None:
    [job_id] = await publish(broker)
    async with Worker(broker, subscription()) as worker:
        [delivery] = await worker.receive(1)
        extend = Extend(None, Progress(0.5, "half"))
        items = tuple(AckItem(delivery.handle, outcome) for outcome in (extend, Complete('"first"'), FAIL))
        answer = await broker.ack(Ack(worker.opened.session_id, items, 1))
        assert [(r.status, r.state) for r in answer.results] == [
            (AckStatus.APPLIED, JobState.ACTIVE),
            (AckStatus.APPLIED, JobState.COMPLETED),
            (AckStatus.ALREADY_APPLIED, JobState.COMPLETED),
        ]
    job = await broker.get_job("work", job_id)
    assert (job.output, job.progress) == ('"first"', Progress(0.5, "half"))


async def test_concurrent_outcomes_of_one_delivery_record_one(broker: Broker) -> None:
    for _ in range(20):
        [job_id] = await publish(broker)
        async with Worker(broker, subscription(credits=1)) as worker:
            [delivery] = await worker.receive(1)
            answers = await asyncio.gather(*(worker.ack(delivery.handle, outcome=Complete(f'"{n}"')) for n in range(4)))
            statuses = [result.status for [result] in answers]
            assert sorted(statuses) == [AckStatus.APPLIED] + [AckStatus.ALREADY_APPLIED] * 3
            assert (await broker.get_job("work", job_id)).output == f'"{statuses.index(AckStatus.APPLIED)}"'


async def test_retries_are_used_up_then_it_is_failed_with_its_history(broker: Broker) -> None:
    [job_id] = await publish(broker, options=JobOptionsPatch(retry_delay_ms=0))
    async with Worker(broker, subscription()) as worker:
        for attempt in (1, 2, 3):
            delivery = (await worker.receive(attempt))[attempt - 1]
            assert (delivery.attempt, delivery.retry_count) == (attempt, attempt - 1)
            [result] = await worker.ack(delivery.handle, outcome=FAIL)
            assert result.state is (JobState.RETRY if attempt < 3 else JobState.FAILED)
    job = await broker.get_job("work", job_id)
    assert (job.state, job.retry_count, [e.attempt for e in job.errors]) == (JobState.FAILED, 2, [1, 2, 3])
    assert {(e.type, e.message, e.trace, e.worker) for e in job.errors} == {
        ("ValueError", "broken", "trace", "test-worker")
    }


async def test_a_permanent_failure_wastes_no_retry(broker: Broker) -> None:
    [job_id] = await publish(broker)
    async with Worker(broker, subscription()) as worker:
        [delivery] = await worker.receive(1)
        await worker.ack(delivery.handle, outcome=replace(FAIL, permanent=True))
    assert await state(broker, job_id) is JobState.FAILED


async def test_the_pause_before_a_retry_doubles_with_jitter_within_its_bound(broker: Broker) -> None:
    rows = await _pauses(broker, 100, True, 3_600_000, (0, 1, 5))
    for base, pauses in zip((100, 200, 3_200), rows, strict=True):
        assert all(base / 2 <= pause <= base for pause in pauses) and len(set(pauses)) > 1
    [bounded, far] = await _pauses(broker, 1_000, True, 5_000, (10, 1_000))
    assert set(bounded) == set(far) == {5_000}
    [plain] = await _pauses(broker, 700, False, 3_600_000, (6,))
    assert set(plain) == {700}


async def _pauses(broker: Broker, delay: int, backoff: bool, bound: int, counts: tuple[int, ...]) -> list[list[float]]:
    function = f'"{broker._database.schema}".retry_pause'
    sql = f"SELECT extract(epoch FROM {function}(%s, %s, %s, %s)) * 1000 AS ms FROM generate_series(1, 20)"
    async with broker._database.connection() as connection:
        rows = []
        for count in counts:
            cursor = await connection.execute(
                sql.encode(),
                [delay, backoff, bound, count],
            )
            rows.append([float(row.ms) for row in await cursor.fetchall()])
        return rows


async def test_release_counts_nothing_and_backs_off_by_its_count(broker: Broker) -> None:
    [job_id] = await publish(broker)
    async with Worker(broker, subscription()) as worker:
        [first] = await worker.receive(1)
        await worker.ack(first.handle, outcome=Release(None))
        second = (await worker.receive(2))[1]
        await worker.ack(second.handle, outcome=Release(None))
        job = await broker.get_job("work", job_id)
        # At once the first time, then after a second.
        assert (job.state, job.retry_count, job.release_count, job.attempt) == (JobState.RETRY, 0, 2, 2)
        third = (await worker.receive(3))[2]
        assert (third.attempt, third.retry_count) == (3, 0)


async def test_a_job_waits_for_its_time(broker: Broker) -> None:
    async with Worker(broker, subscription()) as worker:
        # It would be first: what comes due meanwhile must not take it along.
        [much_later] = await publish(broker, start_in_ms=60_000)
        [later] = await publish(broker, start_in_ms=700)
        [now] = await publish(broker)
        await worker.receive(2)
        assert [delivery.handle.job_id for delivery in worker.deliveries] == [now, later]
        job = await broker.get_job("work", later)
        assert job.started_at is not None and job.started_at >= job.start_after
        assert await state(broker, much_later) is JobState.CREATED


async def test_extend_moves_the_limit_and_progress_alone_does_not(broker: Broker) -> None:
    [job_id] = await publish(broker, options=JobOptionsPatch(expire_ms=10_000))
    async with Worker(broker, subscription()) as worker:
        [delivery] = await worker.receive(1)
        await asyncio.sleep(0.3)
        [result] = await worker.ack(delivery.handle, outcome=Extend(None, Progress(0.25, "a quarter")))
        assert result.status is AckStatus.APPLIED and result.expires_in_ms is not None and result.expires_in_ms <= 9_700
        [result] = await worker.ack(delivery.handle, outcome=Extend(60_000, None))
        assert result.expires_in_ms is not None and 50_000 < result.expires_in_ms <= 60_000
        job = await broker.get_job("work", job_id)
        assert job.progress == Progress(0.25, "a quarter")
        assert len(worker.broker._book._sessions[worker.opened.session_id].in_flight) == 1


async def test_after_the_limit_the_worker_is_told_and_a_complete_within_the_grace_wins(
    replica: Callable[..., Awaitable[Broker]],
) -> None:
    broker = await replica(cancel_grace_ms=60_000)
    [job_id] = await publish(broker, options=JobOptionsPatch(expire_ms=300))
    async with Worker(broker, subscription()) as worker:
        [delivery] = await worker.receive(1)
        await until(lambda: worker.cancellations)
        assert (worker.cancellations[0].handle, worker.cancellations[0].reason) == (delivery.handle, StopReason.EXPIRED)
        await asyncio.sleep(0.5)  # the time limits are looked at again meanwhile
        [result] = await worker.ack(delivery.handle, outcome=Extend(60_000, None))
        assert (result.status, result.stop) == (AckStatus.APPLIED, StopReason.EXPIRED)
        assert (await worker.ack(delivery.handle))[0].status is AckStatus.APPLIED
    assert await state(broker, job_id) is JobState.COMPLETED


async def test_after_the_limit_and_the_grace_a_retry_is_used_up_and_the_credit_stays_out(broker: Broker) -> None:
    [job_id] = await publish(broker, options=JobOptionsPatch(expire_ms=200, retry_delay_ms=0))
    async with Worker(broker, subscription(credits=1)) as worker:
        [delivery] = await worker.receive(1)
        await until_state(broker, job_id, JobState.RETRY)
        # The handler may still run: nothing new until the client settles.
        await asyncio.sleep(0.4)
        assert len(worker.deliveries) == 1
        [late] = await worker.ack(delivery.handle)
        assert late.status is AckStatus.LEASE_LOST
        again = (await worker.receive(2))[1]
        assert (again.attempt, again.retry_count) == (2, 1)
        await worker.ack(again.handle)
    job = await broker.get_job("work", job_id)
    assert (job.state, [e.type for e in job.errors]) == (JobState.COMPLETED, ["EXPIRED"])


async def until_state(broker: Broker, job_id: UUID, wanted: JobState) -> None:
    async with asyncio.timeout(20):
        while (await broker.get_job("work", job_id)).state is not wanted:
            await asyncio.sleep(0.02)


async def test_cancel_takes_waiting_jobs_at_once(broker: Broker) -> None:
    [ready] = await publish(broker)
    [scheduled] = await publish(broker, start_in_ms=60_000)
    missing = uuid4()
    statuses = await broker.cancel("work", [ready, scheduled, missing, ready])
    assert statuses == {
        ready: CancelStatus.CANCELLED,
        scheduled: CancelStatus.CANCELLED,
        missing: CancelStatus.NOT_FOUND,
    }
    assert await broker.cancel("work", [ready]) == {ready: CancelStatus.ALREADY_FINISHED}
    async with Worker(broker, subscription()) as worker:
        [other] = await publish(broker)
        await worker.receive(1)
        assert [d.handle.job_id for d in worker.deliveries] == [other]


@pytest.mark.parametrize("two_replicas", [False, True])
async def test_cancel_reaches_the_running_worker(replica: Callable[..., Awaitable[Broker]], two_replicas: bool) -> None:
    broker = await replica()
    other = await replica() if two_replicas else broker
    [first, second, third] = await publish(broker, 3)
    async with Worker(broker, subscription()) as worker:
        deliveries = await worker.receive(3)
        assert set((await other.cancel("work", [first, second, third])).values()) == {CancelStatus.REQUESTED}
        await until(lambda: len(worker.cancellations) == 3)
        assert {c.reason for c in worker.cancellations} == {StopReason.REQUESTED}
        # One completes in time, one settles as cancelled, one is silent.
        assert (await worker.ack(deliveries[0].handle))[0].status is AckStatus.APPLIED
        assert (await worker.ack(deliveries[1].handle, outcome=FAIL))[0].status is AckStatus.CANCELLED
        await until_state(broker, third, JobState.CANCELLED)
        assert (await worker.ack(deliveries[2].handle))[0].status is AckStatus.CANCELLED
    assert [await state(broker, i) for i in (first, second)] == [JobState.COMPLETED, JobState.CANCELLED]


async def test_a_complete_within_the_grace_of_a_cancel_counts(replica: Callable[..., Awaitable[Broker]]) -> None:
    broker = await replica(cancel_grace_ms=60_000)
    [job_id] = await publish(broker)
    async with Worker(broker, subscription()) as worker:
        [delivery] = await worker.receive(1)
        assert await broker.cancel("work", [job_id]) == {job_id: CancelStatus.REQUESTED}
        await until(lambda: worker.cancellations)
        assert worker.cancellations[0].grace_ms == 60_000
        await asyncio.sleep(1.0)  # the time limits are looked at several times meanwhile
        assert (await worker.ack(delivery.handle))[0].status is AckStatus.APPLIED
    assert await state(broker, job_id) is JobState.COMPLETED


async def test_a_cancel_reaches_the_worker_without_any_signal(replica: Callable[..., Awaitable[Broker]]) -> None:
    """The renewal is the floor under lost signals."""
    here, there = await replica(), await replica(cancel_grace_ms=60_000)
    there._signals.tell_replica = lambda *_, **__: None  # type: ignore[method-assign]
    [job_id] = await publish(here)
    async with Worker(here, subscription()) as worker:
        [delivery] = await worker.receive(1)
        await there.cancel("work", [job_id])
        await until(lambda: worker.cancellations)
        assert worker.cancellations[0].handle == delivery.handle


async def test_acks_at_another_replica_return_credits_here(replica: Callable[..., Awaitable[Broker]]) -> None:
    here, there = await replica(), await replica()
    await publish(here, 6)
    async with Worker(here, subscription(credits=2)) as worker:
        for n in range(6):
            delivery = (await worker.receive(n + 1))[n]
            assert (await worker.ack(delivery.handle, at=there))[0].status is AckStatus.APPLIED


@pytest.mark.parametrize("two_replicas", [False, True])
async def test_an_ack_by_hand_without_the_session_returns_its_credit(
    replica: Callable[..., Awaitable[Broker]], two_replicas: bool
) -> None:
    here = await replica()
    there = await replica() if two_replicas else here
    await publish(here, 3)
    async with Worker(here, subscription(credits=1)) as worker:
        for n in range(3):
            delivery = (await worker.receive(n + 1))[n]
            answer = await there.ack(Ack(None, (AckItem(delivery.handle, Complete(None)),)))
            assert answer.results[0].status is AckStatus.APPLIED


async def test_two_replicas_share_a_queue_and_no_job_goes_to_both(replica: Callable[..., Awaitable[Broker]]) -> None:
    here, there = await replica(), await replica()
    ids = await publish(here, 300)
    async with Worker(here, subscription(credits=20)) as one, Worker(there, subscription(credits=20)) as two:
        done: set[UUID] = set()

        async def work(worker: Worker) -> None:
            seen = 0
            while len(done) < 300:
                if len(worker.deliveries) == seen:
                    await asyncio.sleep(0.005)
                    continue
                batch = worker.deliveries[seen:]
                seen += len(batch)
                for result in await worker.ack(*(d.handle for d in batch)):
                    assert result.status is AckStatus.APPLIED
                done.update(d.handle.job_id for d in batch)

        async with asyncio.timeout(30):
            await asyncio.gather(work(one), work(two))
    assert done == set(ids) and len(one.deliveries) + len(two.deliveries) == 300
    assert one.deliveries and two.deliveries


@pytest.mark.usefixtures("direct")
async def test_a_job_published_at_one_replica_wakes_a_worker_at_another(
    replica: Callable[..., Awaitable[Broker]],
) -> None:
    here, there = await replica(poll_interval_ms=60_000), await replica(poll_interval_ms=60_000)
    async with Worker(there, subscription()) as worker:
        await publish(here)
        await worker.receive(1)


@pytest.mark.usefixtures("direct")
async def test_a_replica_does_not_hear_itself(replica: Callable[..., Awaitable[Broker]]) -> None:
    """What it stored itself it has taken note of: heard again, each signal would have a claim walk from the start."""
    here, there = await replica(poll_interval_ms=60_000), await replica(poll_interval_ms=60_000)
    here._signals.listen("work")
    there._signals.listen("work")
    heard: list[str] = []
    here._signals._on_queue = lambda queue, _: heard.append(f"here: {queue}")
    there._signals._on_queue = lambda queue, _: heard.append(f"there: {queue}")
    await publish(here)
    await until(lambda: heard)
    await publish(there)
    await until(lambda: "here: work" in heard)
    assert heard == ["there: work", "here: work"]


async def test_idle_polling_finds_what_no_signal_told(broker: Broker, postgres: object) -> None:
    """A job whose notification never came, as behind a pooler."""
    async with Worker(broker, subscription()) as worker:
        lane = broker._dispatcher._lanes["work"]
        await until(lambda: not lane.hopeful and not lane.suspects)  # it has looked, and found nothing
        database = broker._database
        async with database.connection() as connection:
            await connection.execute(f'UPDATE "{database.schema}".queue SET notify = false'.encode())
            await connection.execute(f'SELECT "{database.schema}".publish(%s, %s)'.encode(), ["work", '{"from":"sql"}'])
        await worker.receive(1)


async def test_get_job_waits_for_a_change(replica: Callable[..., Awaitable[Broker]]) -> None:
    here, there = await replica(), await replica()
    [job_id] = await publish(here)
    with pytest.raises(JobNotFound):
        await here.get_job("work", uuid4())
    assert (await here.get_job(None, job_id)).queue == "work"
    job = await here.get_job("work", job_id)
    first_change = asyncio.create_task(there.get_job("work", job_id, 30_000, job.revision))
    the_end = asyncio.create_task(there.get_job("work", job_id, 30_000, None, True))
    await until(lambda: len(there._waits) == 2)
    async with Worker(here, subscription()) as worker:
        [delivery] = await worker.receive(1)
        assert (await first_change).state is JobState.ACTIVE
        await worker.ack(delivery.handle, outcome=Extend(None, Progress(0.5, "half")))
        assert not the_end.done()
        await worker.ack(delivery.handle)
        assert (await the_end).state is JobState.COMPLETED
    assert (await there.get_job("work", job_id, 30_000, "an older one")).state is JobState.COMPLETED


async def test_a_bad_call_in_a_group_harms_no_other(broker: Broker) -> None:
    """Calls that would share a statement; one of them cannot be stored."""
    queue = await broker.queues.for_publish("work")
    poison = NewJob(uuid4(), "nul \x00 cannot be stored")
    calls = (
        [broker.publish(queue, jobs(3)) for _ in range(5)]
        + [broker.publish(queue, [*jobs(2), poison])]
        + [broker.publish(queue, jobs(3)) for _ in range(5)]
    )
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[5], Exception)
    good = [result for result in results if not isinstance(result, BaseException)]
    assert len(good) == 10 and all(p.created for published in good for p in published)
    counts = await broker.queues.counts(["work"])
    assert counts["work"].ready == 30


async def test_publishing_again_is_safe_while_it_lives_and_after(broker: Broker) -> None:
    queue = await broker.queues.for_publish("work")
    job = NewJob(uuid4(), '{"key":1}')
    assert [p.created for p in await broker.publish(queue, [job, job])] == [True, False]
    [again] = await broker.publish(queue, [job])
    assert (again.created, again.data_differs) == (False, False)
    [other] = await broker.publish(queue, [job._replace(data='{"key":2}')])
    assert (other.created, other.data_differs) == (False, True)
    async with Worker(broker, subscription()) as worker:
        [delivery] = await worker.receive(1)
        await worker.ack(delivery.handle)
        [after] = await broker.publish(queue, [job])
        assert (after.created, after.data_differs) == (False, False)
        await asyncio.sleep(0.4)
        assert len(worker.deliveries) == 1


@pytest.mark.parametrize("scheduled", [False, True])
async def test_idling_costs_a_few_statements_for_any_number_of_queues(
    replica: Callable[..., Awaitable[Broker]], scheduled: bool
) -> None:
    broker = await replica(poll_interval_ms=500)
    if scheduled:
        await publish(broker, start_in_ms=60_000)
    async with Worker(broker, subscription(*(f"queue-{n}" for n in range(100)))):
        await asyncio.sleep(1.0)
        before, since = broker._database.pool_stats()["requests_num"], time.monotonic()
        await asyncio.sleep(1.0)
        made = broker._database.pool_stats()["requests_num"] - before
        # A second may take longer on a busy machine. Each queue by itself would make 100 of it.
        assert made <= 25 * (time.monotonic() - since)
