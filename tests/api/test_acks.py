"""Each item of an Ack is answered by itself: what is over, foreign or unknown is told so and changes nothing."""

from __future__ import annotations

from uuid import uuid4

from google.protobuf.duration_pb2 import Duration

from jobwire.v1 import job_pb2 as jobs
from jobwire.v1.admin_service_pb2 import CANCEL_STATUS_REQUESTED, CancelJobsRequest
from jobwire.v1.queue_service_pb2 import (
    ACK_STATUS_ALREADY_APPLIED,
    ACK_STATUS_APPLIED,
    ACK_STATUS_CANCELLED,
    ACK_STATUS_LEASE_LOST,
    ACK_STATUS_NOT_FOUND,
    CANCEL_REASON_REQUESTED,
    AckItem,
    Complete,
    Extend,
    Fail,
    GetJobRequest,
    JobSpec,
    PublishRequest,
    Release,
)
from jobwire_server.domain.handles import Handle

from .conftest import Api
from .worker import Worker, publish


def complete(handle: str, output: str = "") -> AckItem:
    return AckItem(handle=handle, complete=Complete(output=output))


async def job(api: Api, job_id: str) -> jobs.Job:
    return (await api.queue.GetJob(GetJobRequest(job_id=job_id))).job


async def test_stale_and_foreign_handles_are_told_item_by_item(api: Api) -> None:
    await publish(api, 3, queue="mixed")
    async with Worker(api, "mixed", max_in_flight=3) as worker:
        held, given_back, done = await worker.receive(3)
        await worker.ack(AckItem(handle=given_back.handle, release=Release()))
        await worker.until(lambda: len(worker.deliveries) == 4)
        again = worker.deliveries[3]
        assert again.job_id == given_back.job_id and again.handle != given_back.handle
        await worker.complete(done)
        await publish(api, queue="mixed")
        other = (await worker.receive(5))[4]
        lease, of_other = Handle.parse(held.handle), Handle.parse(other.handle)
        assert lease is not None and of_other is not None
        foreign = [
            Handle(lease.queue, lease.job_id, uuid4(), lease.place),
            Handle(lease.queue, lease.job_id, of_other.token, of_other.place),
            Handle(lease.queue, of_other.job_id, lease.token, lease.place),
        ]
        unknown = [
            Handle(lease.queue, uuid4(), lease.token, lease.place),
            Handle("elsewhere", lease.job_id, lease.token, lease.place),
        ]
        results = await worker.ack(
            complete(given_back.handle),
            *(complete(str(handle)) for handle in (*foreign, *unknown)),
            complete(done.handle),
            complete(held.handle, '"mine"'),
        )
        assert [result.status for result in results] == [
            # A `complete` for what was released under this very handle: it is known, and changes nothing.
            ACK_STATUS_ALREADY_APPLIED,
            *[ACK_STATUS_LEASE_LOST] * 3,
            *[ACK_STATUS_NOT_FOUND] * 2,
            ACK_STATUS_ALREADY_APPLIED,
            ACK_STATUS_APPLIED,
        ]
        assert (await job(api, held.job_id)).output == '"mine"'
        assert (await job(api, again.job_id)).state == jobs.JOB_STATE_ACTIVE
        assert await worker.complete(again, other) == [ACK_STATUS_APPLIED] * 2
    assert (await job(api, done.job_id)).attempt == 1


async def test_a_handle_names_its_place_in_the_claim(api: Api) -> None:
    await publish(api, 2, queue="places")
    async with Worker(api, "places", max_in_flight=2) as worker:
        [delivery, _] = await worker.receive(2)
        lease = Handle.parse(delivery.handle)
        assert lease is not None
        for place in (lease.place + 1, 1_000, 65_535):
            forged = Handle(lease.queue, lease.job_id, lease.token, place)
            [result] = await worker.ack(complete(str(forged)))
            assert (result.status, result.state) == (ACK_STATUS_LEASE_LOST, jobs.JOB_STATE_ACTIVE)
        assert await worker.complete(*worker.deliveries) == [ACK_STATUS_APPLIED] * 2


async def test_a_call_may_say_several_things_of_one_delivery(api: Api) -> None:
    """As a client does that groups what it has to say."""
    await publish(api, queue="talkative")
    async with Worker(api, "talkative") as worker:
        [delivery] = await worker.receive(1)
        halfway = Extend(progress=jobs.Progress(fraction=0.5))
        results = await worker.ack(
            AckItem(handle=delivery.handle, extend=halfway),
            complete(delivery.handle, '"first"'),
            complete(delivery.handle, '"second"'),
        )
        assert [(result.status, result.state) for result in results] == [
            (ACK_STATUS_APPLIED, jobs.JOB_STATE_ACTIVE),
            (ACK_STATUS_APPLIED, jobs.JOB_STATE_COMPLETED),
            (ACK_STATUS_ALREADY_APPLIED, jobs.JOB_STATE_COMPLETED),
        ]
    settled = await job(api, delivery.job_id)
    assert (settled.state, settled.output) == (jobs.JOB_STATE_COMPLETED, '"first"')
    assert settled.progress.fraction == 0.5


async def test_a_lease_that_another_worker_has_got_since(api: Api) -> None:
    [job_id] = await publish(api, queue="passed")
    async with Worker(api, "passed", resume_grace=Duration()) as first:
        [mine] = await first.receive(1)
    async with Worker(api, "passed") as second:
        [theirs] = await second.receive(1)
        late = await first.ack(
            complete(mine.handle, '"late"'),
            AckItem(handle=mine.handle, extend=Extend(progress=jobs.Progress(fraction=1))),
        )
        assert [(result.status, result.state) for result in late] == [
            (ACK_STATUS_LEASE_LOST, jobs.JOB_STATE_ACTIVE)
        ] * 2
        assert not (await first.report()).session_alive
        held = await job(api, job_id)
        assert (held.session_id, held.attempt, held.HasField("progress")) == (second.session_id, 2, False)
        assert await second.complete(theirs) == [ACK_STATUS_APPLIED]
    assert (await job(api, job_id)).output == ""


async def test_all_outcomes_and_what_the_job_says_then(api: Api) -> None:
    await publish(api, 4, queue="outcomes", options=jobs.JobOptions(retry_delay=Duration(seconds=600)))
    async with Worker(api, "outcomes", max_in_flight=4) as worker:
        first, second, third, fourth = await worker.receive(4)
        progress = jobs.Progress(fraction=0.25, note="a quarter")
        results = await worker.ack(
            complete(first.handle, '{"rows": 3}'),
            AckItem(handle=second.handle, fail=Fail(type="Boom", message="it broke", trace="line 1")),
            AckItem(handle=third.handle, fail=Fail(message="hopeless", permanent=True)),
            AckItem(handle=fourth.handle, extend=Extend(expire_in=Duration(seconds=3_600), progress=progress)),
        )
        assert [(result.status, result.state) for result in results] == [
            (ACK_STATUS_APPLIED, jobs.JOB_STATE_COMPLETED),
            (ACK_STATUS_APPLIED, jobs.JOB_STATE_RETRY),
            (ACK_STATUS_APPLIED, jobs.JOB_STATE_FAILED),
            (ACK_STATUS_APPLIED, jobs.JOB_STATE_ACTIVE),
        ]
        assert 3_500 < results[3].expires_in.ToSeconds() <= 3_600
        assert not any(result.HasField("expires_in") for result in results[:3])

        done = await job(api, first.job_id)
        assert (done.output, done.worker, done.session_id) == ('{"rows": 3}', "tester", "")
        assert done.create_time.ToNanoseconds() <= done.start_time.ToNanoseconds() <= done.finish_time.ToNanoseconds()
        failed = await job(api, second.job_id)
        [error] = failed.errors
        assert (error.attempt, error.worker) == (1, "tester")
        assert (error.type, error.message, error.trace) == ("Boom", "it broke", "line 1")
        assert (failed.state, failed.retry_count, failed.attempt) == (jobs.JOB_STATE_RETRY, 1, 1)
        assert (await job(api, third.job_id)).errors[0].message == "hopeless"
        running = await job(api, fourth.job_id)
        assert (running.state, running.progress) == (jobs.JOB_STATE_ACTIVE, progress)
        assert running.session_id == worker.session_id

        # Said twice, done once.
        repeated = await worker.ack(complete(first.handle), AckItem(handle=second.handle, fail=Fail(type="Boom")))
        assert [(result.status, result.state) for result in repeated] == [
            (ACK_STATUS_ALREADY_APPLIED, jobs.JOB_STATE_COMPLETED),
            (ACK_STATUS_ALREADY_APPLIED, jobs.JOB_STATE_RETRY),
        ]


async def test_jobs_that_are_kept_for_many_different_times(api: Api) -> None:
    """The archive has a part for each day; one call may need a hundred that nobody has needed before."""
    specs = [
        JobSpec(options=jobs.JobOptions(retention=Duration(seconds=(20 + number) * 86_400))) for number in range(100)
    ]
    await api.queue.Publish(PublishRequest(queue="keepsakes", jobs=specs))
    async with Worker(api, "keepsakes", max_in_flight=100) as worker:
        deliveries = await worker.receive(100)
        assert await worker.complete(*deliveries) == [ACK_STATUS_APPLIED] * 100


async def test_cancelling_what_runs(api: Api) -> None:
    [job_id] = await publish(api, queue="stopped")
    async with Worker(api, "stopped") as worker:
        [delivery] = await worker.receive(1)
        answer = await api.admin.CancelJobs(CancelJobsRequest(queue="stopped", job_ids=[job_id]))
        assert [(result.job_id, result.status) for result in answer.results] == [(job_id, CANCEL_STATUS_REQUESTED)]
        await worker.until(lambda: worker.events("cancellation"))
        told = worker.events("cancellation")[0].cancellation
        assert (told.handle, told.job_id, told.reason) == (delivery.handle, job_id, CANCEL_REASON_REQUESTED)
        assert 0 < told.grace.ToSeconds() <= 30
        assert (await job(api, job_id)).cancel_requested
        [extended] = await worker.ack(AckItem(handle=delivery.handle, extend=Extend()))
        assert (extended.status, extended.cancel) == (ACK_STATUS_APPLIED, CANCEL_REASON_REQUESTED)
        [settled] = await worker.ack(AckItem(handle=delivery.handle, fail=Fail(type="Cancelled")))
        assert (settled.status, settled.state) == (ACK_STATUS_CANCELLED, jobs.JOB_STATE_CANCELLED)
