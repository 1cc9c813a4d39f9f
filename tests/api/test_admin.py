"""AdminService and GetJob as an operator and a publisher see them."""

from __future__ import annotations

import asyncio
from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from jobwire.v1 import job_pb2 as jobs
from jobwire.v1.admin_service_pb2 import (
    CANCEL_STATUS_ALREADY_FINISHED,
    CANCEL_STATUS_CANCELLED,
    CANCEL_STATUS_NOT_FOUND,
    CANCEL_STATUS_REQUESTED,
    CancelJobsRequest,
    CreateQueueRequest,
    GetQueueRequest,
    ListJobsRequest,
    ListQueuesRequest,
    Queue,
    UpdateQueueRequest,
)
from jobwire.v1.queue_service_pb2 import AckItem, Extend, Fail, GetJobRequest

from .conftest import Api, Serve
from .http_client import metrics
from .worker import Worker, publish

DEFAULTS = jobs.JobOptions(
    retry_limit=2,
    retry_delay=Duration(seconds=1),
    retry_backoff=True,
    retry_delay_max=Duration(seconds=3_600),
    expire_in=Duration(seconds=900),
    retention=Duration(seconds=7 * 86_400),
)


async def test_a_queue_is_created_once(api: Api) -> None:
    wanted = Queue(name="reports", options=jobs.JobOptions(retry_limit=0), max_data_bytes=1_000)
    first = await api.admin.CreateQueue(CreateQueueRequest(queue=wanted))
    expected = jobs.JobOptions()
    expected.CopyFrom(DEFAULTS)
    expected.retry_limit = 0
    assert first.created and first.queue.options == expected and first.queue.max_data_bytes == 1_000
    assert first.queue.HasField("create_time") and not first.queue.HasField("counts")
    second = await api.admin.CreateQueue(CreateQueueRequest(queue=Queue(name="reports", max_data_bytes=5)))
    assert not second.created and second.queue == first.queue


async def test_an_update_changes_what_it_names_and_only_for_jobs_to_come(api: Api) -> None:
    [before] = await publish(api, queue="tuned")
    change = Queue(name="tuned", options=jobs.JobOptions(retry_limit=9, retry_backoff=False))
    updated = (await api.admin.UpdateQueue(UpdateQueueRequest(queue=change))).queue
    expected = jobs.JobOptions()
    expected.CopyFrom(DEFAULTS)
    expected.retry_limit, expected.retry_backoff = 9, False
    assert updated.options == expected and updated.max_data_bytes == 65_536
    assert updated.update_time.ToNanoseconds() > updated.create_time.ToNanoseconds()
    [after] = await publish(api, queue="tuned")
    for job_id, options in ((before, DEFAULTS), (after, expected)):
        assert (await api.queue.GetJob(GetJobRequest(queue="tuned", job_id=job_id))).job.options == options


async def test_counts(api: Api) -> None:
    await publish(api, 3, queue="counted")
    await publish(api, 2, queue="counted", start_in=Duration(seconds=600))
    async with Worker(api, "counted") as worker:
        await worker.receive(1)
        counts = (await api.admin.GetQueue(GetQueueRequest(name="counted"))).queue.counts
        assert (counts.ready, counts.scheduled, counts.active) == (2, 2, 1)


async def test_queues_are_listed_by_name_page_by_page(serve: Serve) -> None:
    names = [f"q-{n}" for n in range(7)]
    async with serve() as api:
        for name in reversed(names):
            await api.admin.CreateQueue(CreateQueueRequest(queue=Queue(name=name)))
        await publish(api, queue="q-3")
        pages, token = [], ""
        while not pages or token:
            page = await api.admin.ListQueues(ListQueuesRequest(page_size=3, page_token=token))
            pages.append([(queue.name, queue.counts.ready) for queue in page.queues])
            token = page.next_page_token
        assert pages == [
            [("q-0", 0), ("q-1", 0), ("q-2", 0)],
            [("q-3", 1), ("q-4", 0), ("q-5", 0)],
            [("q-6", 0)],
        ]
        everything = await api.admin.ListQueues(ListQueuesRequest())
        assert [queue.name for queue in everything.queues] == names and not everything.next_page_token


async def test_jobs_are_listed_by_descending_id_and_by_state(api: Api) -> None:
    ids = sorted(await publish(api, 5, queue="listed"), reverse=True)
    async with Worker(api, "listed", max_in_flight=2) as worker:
        first, second = await worker.receive(2)
        await worker.ack(AckItem(handle=first.handle, fail=Fail(permanent=True)))
        await worker.receive(3)
        await worker.complete(second)
        await worker.receive(4)

        async def listed(*states: int) -> set[str]:
            answer = await api.admin.ListJobs(ListJobsRequest(queue="listed", states=states))
            return {job.id for job in answer.jobs}

        held = {delivery.job_id for delivery in worker.deliveries[2:]}
        assert await listed(jobs.JOB_STATE_FAILED) == {first.job_id}
        assert await listed(jobs.JOB_STATE_COMPLETED) == {second.job_id}
        assert await listed(jobs.JOB_STATE_ACTIVE) == held
        assert await listed(jobs.JOB_STATE_CREATED) == set(ids) - held - {first.job_id, second.job_id}
        assert await listed(jobs.JOB_STATE_FAILED, jobs.JOB_STATE_COMPLETED) == {first.job_id, second.job_id}
        assert await listed(jobs.JOB_STATE_BLOCKED) == set()
    pages, token = [], ""
    while not pages or token:
        page = await api.admin.ListJobs(ListJobsRequest(queue="listed", page_size=2, page_token=token))
        pages.append([job.id for job in page.jobs])
        token = page.next_page_token
    assert pages == [ids[0:2], ids[2:4], ids[4:]]


async def test_cancelling_tells_what_became_of_each(api: Api) -> None:
    done, running, waiting = await publish(api, 3, queue="cancelled")
    async with Worker(api, "cancelled") as worker:
        await worker.complete(*(await worker.receive(1)))
        await worker.receive(2)
        unknown = str(UUID(int=5))
        asked = [waiting, running, unknown, done, waiting]
        answer = await api.admin.CancelJobs(CancelJobsRequest(queue="cancelled", job_ids=asked))
        assert [result.job_id for result in answer.results] == asked
        assert [result.status for result in answer.results] == [
            CANCEL_STATUS_CANCELLED,
            CANCEL_STATUS_REQUESTED,
            CANCEL_STATUS_NOT_FOUND,
            CANCEL_STATUS_ALREADY_FINISHED,
            CANCEL_STATUS_CANCELLED,
        ]
        job = (await api.queue.GetJob(GetJobRequest(job_id=waiting))).job
        assert job.state == jobs.JOB_STATE_CANCELLED and job.HasField("finish_time")
        again = await api.admin.CancelJobs(CancelJobsRequest(queue="cancelled", job_ids=[waiting]))
        assert again.results[0].status == CANCEL_STATUS_ALREADY_FINISHED


async def test_get_job_waits_for_a_change_of_revision(api: Api) -> None:
    [job_id] = await publish(api, queue="watched")
    minute = Duration(seconds=60)
    known = (await api.queue.GetJob(GetJobRequest(job_id=job_id))).job.revision

    async def change_after(act: object) -> jobs.Job:
        """What a waiting call answers once `act` has been done."""
        request = GetJobRequest(queue="watched", job_id=job_id, wait=minute, known_revision=known)
        waiting = asyncio.ensure_future(api.queue.GetJob(request))
        while not (await metrics(api.server))("jobwire_waits"):
            await asyncio.sleep(0.01)
        assert not waiting.done()
        await act  # type: ignore[misc]
        async with asyncio.timeout(20):
            return (await waiting).job

    worker = Worker(api, "watched")
    async with worker:
        [delivery] = await worker.receive(1)
        delivered = (await api.queue.GetJob(GetJobRequest(job_id=job_id, wait=minute, known_revision=known))).job
        assert delivered.state == jobs.JOB_STATE_ACTIVE and delivered.revision != known
        known = delivered.revision
        halfway = Extend(progress=jobs.Progress(fraction=0.5, note="half"))
        told = await change_after(worker.ack(AckItem(handle=delivery.handle, extend=halfway)))
        assert told.progress == halfway.progress and told.revision != known
        known = told.revision
        finished = await change_after(worker.complete(delivery))
        assert finished.state == jobs.JOB_STATE_COMPLETED
    # A finished job changes no more: nobody is left waiting for it.
    request = GetJobRequest(job_id=job_id, wait=minute, known_revision=finished.revision, until_finished=True)
    async with asyncio.timeout(20):
        assert (await api.queue.GetJob(request)).job == finished


async def test_get_job_answers_with_the_job_as_it_is_when_the_wait_is_over(api: Api) -> None:
    [job_id] = await publish(api, queue="patient")
    request = GetJobRequest(job_id=job_id, wait=Duration(nanos=300_000_000))
    async with asyncio.timeout(20):
        assert (await api.queue.GetJob(request)).job.state == jobs.JOB_STATE_CREATED
