"""Policies, limits and pauses as publishers, workers and operators see them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from jobwire import Client, Group, NotCreatedReason, QueueBusy, QueueLimits, QueuePolicy, Rate, sync
from jobwire.v1.admin_service_pb2 import (
    QUEUE_POLICY_EXCLUSIVE,
    QUEUE_POLICY_KEY_STRICT_FIFO,
    QUEUE_POLICY_SHORT,
    QUEUE_POLICY_SINGLETON,
    QUEUE_POLICY_STANDARD,
    QUEUE_POLICY_STATELY,
    CreateQueueRequest,
    GetQueueRequest,
    PauseQueueRequest,
    Queue,
    ResumeQueueRequest,
    UpdateQueueRequest,
)
from jobwire.v1.admin_service_pb2 import QueueLimits as LimitsMessage
from jobwire.v1.job_pb2 import JOB_STATE_ACTIVE, JOB_STATE_BLOCKED, JobGroup
from jobwire.v1.queue_service_pb2 import (
    NOT_CREATED_REASON_DEBOUNCED,
    NOT_CREATED_REASON_DUPLICATE_ID,
    NOT_CREATED_REASON_NOT_UNIQUE,
    NOT_CREATED_REASON_POLICY,
    NOT_CREATED_REASON_THROTTLED,
    AckItem,
    Complete,
    GetJobRequest,
    JobSpec,
    PublishRequest,
)

from .conftest import Api, Eye
from .refusals import refused
from .worker import Worker, publish

YEAR = Duration(seconds=365 * 86_400)
"""Of a slot of this length, a test meets the end once in a lifetime."""
ID = "0192d3a4-0000-7000-8000-000000000001"


async def create(api: Api, name: str, **said: object) -> Queue:
    return (await api.admin.CreateQueue(CreateQueueRequest(queue=Queue(name=name, **said)))).queue


async def update(api: Api, name: str, **said: object) -> Queue:
    return (await api.admin.UpdateQueue(UpdateQueueRequest(queue=Queue(name=name, **said)))).queue


@pytest.mark.parametrize(
    ("policy", "first", "second", "reason"),
    [
        (QUEUE_POLICY_STANDARD, JobSpec(id=ID), JobSpec(id=ID), NOT_CREATED_REASON_DUPLICATE_ID),
        (QUEUE_POLICY_SHORT, JobSpec(key="k"), JobSpec(key="k"), NOT_CREATED_REASON_POLICY),
        (QUEUE_POLICY_STATELY, JobSpec(), JobSpec(), NOT_CREATED_REASON_POLICY),
        (QUEUE_POLICY_EXCLUSIVE, JobSpec(key="k"), JobSpec(key="k"), NOT_CREATED_REASON_POLICY),
        (QUEUE_POLICY_STANDARD, JobSpec(throttle=YEAR), JobSpec(throttle=YEAR), NOT_CREATED_REASON_THROTTLED),
        (QUEUE_POLICY_STANDARD, JobSpec(unique_for=YEAR), JobSpec(unique_for=YEAR), NOT_CREATED_REASON_NOT_UNIQUE),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_why_a_job_was_not_stored(
    api: Api, request: pytest.FixtureRequest, policy: int, first: JobSpec, second: JobSpec, reason: int, together: bool
) -> None:
    queue = f"why-{request.node.callspec.id[:40].replace('_', '-')}"
    await create(api, queue, policy=policy)
    calls = [[first, second]] if together else [[first], [second]]
    answers = [await api.queue.Publish(PublishRequest(queue=queue, jobs=jobs)) for jobs in calls]
    stored, not_stored = [result for answer in answers for result in answer.results]
    assert stored.created and not stored.reason and not stored.met_job_id
    assert (not_stored.created, not_stored.reason) == (False, reason)
    assert not_stored.met_job_id == not_stored.job_id == stored.job_id
    other = await api.queue.Publish(PublishRequest(queue=queue, jobs=[JobSpec(key="another")]))
    assert other.results[0].created


async def test_the_rest_of_a_burst_becomes_one_job_in_the_next_slot(api: Api) -> None:
    jobs = [JobSpec(key="k", debounce=YEAR) for _ in range(4)]
    answer = await api.queue.Publish(PublishRequest(queue="burst", jobs=jobs))
    assert [result.created for result in answer.results] == [True, True, False, False]
    assert {result.reason for result in answer.results[2:]} == {NOT_CREATED_REASON_DEBOUNCED}
    assert {result.met_job_id for result in answer.results[2:]} == {answer.results[1].job_id}
    now, later = [(await api.queue.GetJob(GetJobRequest(job_id=result.job_id))).job for result in answer.results[:2]]
    assert now.start_after.ToNanoseconds() <= now.create_time.ToNanoseconds()
    # Slots are counted from 1970.
    assert later.start_after.seconds % YEAR.seconds == 0 and later.start_after.nanos == 0
    assert 0 < later.start_after.seconds - later.create_time.seconds <= YEAR.seconds


async def test_a_blocked_job_says_so_and_runs_when_its_turn_comes(api: Api) -> None:
    await create(api, "turns", policy=QUEUE_POLICY_SINGLETON)
    first, second = await publish(api, 2, "turns", key="order 7", group=JobGroup(id="acme", tier="gold"))
    async with Worker(api, "turns", max_in_flight=5) as worker:
        [delivery] = await worker.receive(1)
        assert delivery.job_id == first
        job = (await api.queue.GetJob(GetJobRequest(job_id=second))).job
        while job.state != JOB_STATE_BLOCKED:
            job = (await api.queue.GetJob(GetJobRequest(job_id=second))).job
        assert (job.key, job.group, job.waits_for) == ("order 7", JobGroup(id="acme", tier="gold"), "key order 7")
        counts = (await api.admin.GetQueue(GetQueueRequest(name="turns"))).queue.counts
        assert (counts.active, counts.blocked, counts.ready) == (1, 1, 0)
        await worker.complete(delivery)
        [_, next_one] = await worker.receive(2)
        assert next_one.job_id == second
        running = (await api.queue.GetJob(GetJobRequest(job_id=second))).job
        assert (running.state, running.waits_for) == (JOB_STATE_ACTIVE, "")
        await worker.ack(AckItem(handle=next_one.handle, complete=Complete()))


async def test_limits_are_replaced_and_what_is_not_said_stays(api: Api) -> None:
    limits = LimitsMessage(max_active=5, group_max_active=2, tier_max_active={"gold": 8})
    limits.rate.starts, limits.rate.period.seconds = 10, 60
    limits.group_rate.starts, limits.group_rate.period.nanos = 3, 500_000_000
    made = await create(
        api, "bounds", policy=QUEUE_POLICY_SHORT, limits=limits, fair=True, waiting_retention=Duration(seconds=5)
    )
    assert (made.policy, made.limits, made.fair) == (QUEUE_POLICY_SHORT, limits, True)
    assert made.waiting_retention.seconds == 5 and not made.paused
    assert (await update(api, "bounds", max_depth=9)).limits == limits
    fewer = LimitsMessage(max_active=6)
    changed = await update(api, "bounds", limits=fewer)
    assert (changed.policy, changed.limits, changed.fair) == (QUEUE_POLICY_SHORT, fewer, True)
    bare = await update(
        api, "bounds", limits=LimitsMessage(), policy=QUEUE_POLICY_STANDARD, fair=False, waiting_retention=Duration()
    )
    assert (bare.policy, bare.limits, bare.fair) == (QUEUE_POLICY_STANDARD, LimitsMessage(), False)
    assert not bare.HasField("waiting_retention") and bare.max_depth == 9


async def test_a_policy_is_changed_with_jobs_in_the_queue(api: Api) -> None:
    first, second = await publish(api, 2, "changed", key="k")
    await publish(api, 1, "changed")
    answer = await refused(
        api.admin.UpdateQueue(UpdateQueueRequest(queue=Queue(name="changed", policy=QUEUE_POLICY_KEY_STRICT_FIFO)))
    )
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "QUEUE_BUSY")
    assert "without a key" in answer.message and answer.retry_after is None
    assert (await update(api, "changed", policy=QUEUE_POLICY_SINGLETON)).policy == QUEUE_POLICY_SINGLETON
    async with Worker(api, "changed", max_in_flight=5) as worker:
        deliveries = await worker.receive(2)
        assert deliveries[0].job_id == first and second not in [delivery.job_id for delivery in deliveries]
        await update(api, "changed", policy=QUEUE_POLICY_STANDARD)
        deliveries = await worker.receive(3)
        assert deliveries[2].job_id == second


async def test_with_too_many_jobs_only_what_holds_for_new_ones_can_be_changed(api: Api, shared_eye: Eye) -> None:
    for _ in range(10):
        await publish(api, 1_000, "crowd")
    assert (await update(api, "crowd", limits=LimitsMessage(max_active=1))).limits.max_active == 1
    await publish(api, 1, "crowd")
    before = (await api.admin.GetQueue(GetQueueRequest(name="crowd"))).queue
    for change in (
        Queue(name="crowd", policy=QUEUE_POLICY_SINGLETON),
        Queue(name="crowd", fair=True, max_depth=5),
        Queue(name="crowd", limits=LimitsMessage()),
    ):
        answer = await refused(api.admin.UpdateQueue(UpdateQueueRequest(queue=change)))
        assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "QUEUE_BUSY")
        assert "10,000 jobs" in answer.message and "let workers catch up" in answer.message
    after = (await api.admin.GetQueue(GetQueueRequest(name="crowd"))).queue
    for queue in (before, after):
        queue.ClearField("counts")
    assert after == before
    assert (await update(api, "crowd", max_depth=20_000)).max_depth == 20_000
    assert (await api.admin.PauseQueue(PauseQueueRequest(name="crowd"))).queue.paused


async def test_nothing_of_a_paused_queue_starts_until_it_is_resumed(api: Api) -> None:
    await create(api, "halted")
    async with Worker(api, "halted", "other", max_in_flight=5) as worker:
        for _ in range(2):
            assert (await api.admin.PauseQueue(PauseQueueRequest(name="halted"))).queue.paused
        [held] = await publish(api, 1, "halted")
        [free] = await publish(api, 1, "other")
        [delivery] = await worker.receive(1)
        assert delivery.job_id == free
        await asyncio.sleep(0.5)
        assert len(worker.deliveries) == 1
        assert (await api.admin.GetQueue(GetQueueRequest(name="halted"))).queue.counts.ready == 1
        for _ in range(2):
            assert not (await api.admin.ResumeQueue(ResumeQueueRequest(name="halted"))).queue.paused
        [_, resumed] = await worker.receive(2)
        assert resumed.job_id == held


LIMITS = QueueLimits(5, Rate(10, timedelta(minutes=1)), 2, {"gold": 8}, Rate(3, 0.5))


async def test_the_python_clients_say_and_read_the_same(api: Api) -> None:
    async with Client(api.server.address) as client:
        made = await client.admin.create_queue(
            "spoken", policy="exclusive", limits=LIMITS, fair=True, waiting_retention=timedelta(days=1)
        )
        assert (made.created, made.policy, made.limits, made.fair) == (True, QueuePolicy.EXCLUSIVE, LIMITS, True)
        assert (made.waiting_retention, made.paused) == (86_400, False)
        assert (await client.admin.update_queue("spoken", limits=QueueLimits())).limits == QueueLimits()
        assert (await client.admin.pause_queue("spoken")).paused
        first = await client.publish("spoken", 1, key="k", group=Group("acme", "gold"))
        again = await client.publish("spoken", 2, key="k")
        assert (again.created, again.reason, again.met_job_id) == (False, NotCreatedReason.POLICY, first.job_id)
        job = await client.get_job(first.job_id)
        assert (job.key, job.group) == ("k", Group("acme", "gold"))
        await publish(api, 1, "keyless")
        with pytest.raises(QueueBusy, match="without a key"):
            await client.admin.update_queue("keyless", policy=QueuePolicy.KEY_STRICT_FIFO)
    await asyncio.to_thread(_from_a_thread, api.server.address)


def _from_a_thread(address: str) -> None:
    with sync.Client(address) as client:
        counted = client.admin.get_queue("spoken")
        assert counted.paused
        assert counted.counts is not None
        assert (counted.counts.ready + counted.counts.blocked, counted.counts.active) == (1, 0)
        assert not client.admin.resume_queue("spoken").paused
        assert client.admin.pause_queue("spoken").paused
        assert client.admin.update_queue("spoken", limits=LIMITS).limits == LIMITS
        assert client.admin.create_queue("spoken-2", policy="short", max_depth=3).max_depth == 3
        again = client.publish("spoken", 2, key="k")
        assert again.reason is NotCreatedReason.POLICY
