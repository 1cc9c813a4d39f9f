"""Operations over the wire: confirmations, tokens from call to call, refusals that say what to do, and the record."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest

from jobwire import FailedPrecondition, sync
from jobwire import JobFilter as JobWhere
from jobwire.v1 import job_pb2 as jobs
from jobwire.v1.admin_service_pb2 import CreateQueueRequest, GetQueueRequest, ListJobsRequest, Queue
from jobwire.v1.operations_pb2 import (
    CHANGE_STATUS_CHANGED,
    CHANGE_STATUS_NOT_FOUND,
    PURGE_SCOPE_ALL,
    CancelChange,
    ChangeJobsRequest,
    DeleteChange,
    DeleteQueueRequest,
    JobFilter,
    JobIds,
    ListActionsRequest,
    PurgeQueueRequest,
    RetryChange,
    UpdateJobsRequest,
)
from jobwire_server.store import database

from .conftest import Api, Eye
from .refusals import refused
from .worker import Worker, publish

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


def cancel(queue: str, **more: object) -> ChangeJobsRequest:
    return ChangeJobsRequest(queue=queue, filter=JobFilter(), cancel=CancelChange(), **more)


@pytest.fixture
def in_small_steps(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call looks at few jobs and ends."""
    operations = api.server._broker.operations
    monkeypatch.setattr(operations, "call_seconds", 0.0)
    monkeypatch.setattr(operations, "window", 10)
    monkeypatch.setattr(operations, "batch", 4)


async def test_by_filter_nothing_is_changed_without_a_dry_run_or_a_limit(api: Api) -> None:
    await publish(api, 6, queue="careful")
    answer = await refused(api.admin.ChangeJobs(cancel("careful")))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CONFIRMATION_REQUIRED")
    assert "`dry_run`" in answer.message and answer.retry_after is None
    dry = await api.admin.ChangeJobs(cancel("careful", dry_run=True))
    assert (dry.matched, dry.changed, dry.next_page_token, len(dry.results)) == (6, 0, "", 6)
    # Neither for another change nor for another filter.
    others = (
        ChangeJobsRequest(queue="careful", filter=JobFilter(), delete=DeleteChange(), confirmation=dry.confirmation),
        ChangeJobsRequest(
            queue="careful", filter=JobFilter(key="k"), cancel=CancelChange(), confirmation=dry.confirmation
        ),
    )
    for other in others:
        assert (await refused(api.admin.ChangeJobs(other))).reason == "CONFIRMATION_REQUIRED"
    await publish(api, 3, queue="careful")
    done = await api.admin.ChangeJobs(cancel("careful", confirmation=dry.confirmation))
    # No more than were counted, though more match by now.
    assert (done.matched, done.changed, done.next_page_token) == (6, 6, "")
    rest = await api.admin.ChangeJobs(cancel("careful", limit=2))
    assert (rest.matched, rest.changed) == (2, 2)
    assert (await api.admin.GetQueue(GetQueueRequest(name="careful"))).queue.counts.ready == 1


@pytest.mark.usefixtures("in_small_steps")
async def test_a_long_operation_goes_on_from_call_to_call(api: Api) -> None:
    await publish(api, 25, queue="long")
    request, calls = cancel("long", dry_run=True), 0
    while not calls or request.page_token:
        answer = await api.admin.ChangeJobs(request)
        request.page_token = answer.next_page_token
        calls += 1
        assert bool(answer.confirmation) == (not answer.next_page_token)
    assert (answer.matched, calls) == (25, 3)
    acting, seen = cancel("long", confirmation=answer.confirmation), []
    while not seen or acting.page_token:
        answer = await api.admin.ChangeJobs(acting)
        acting.page_token = answer.next_page_token
        seen.append(answer.changed)
    assert seen == [4, 8, 12, 16, 20, 24, 25]
    [action] = (await api.admin.ListActions(ListActionsRequest(queue="long"))).actions
    assert (action.what, action.matched, action.changed) == ("job.cancel", 25, 25)
    # A token is of its own call alone.
    token = (await api.admin.ChangeJobs(cancel("long", dry_run=True))).next_page_token
    other = ChangeJobsRequest(queue="long", filter=JobFilter(), retry=RetryChange(), dry_run=True, page_token=token)
    if token:
        assert (await refused(api.admin.ChangeJobs(other))).place == "page_token"


async def test_by_ids_each_is_told_of(api: Api) -> None:
    ids = await publish(api, 2, queue="named")
    asked = [ids[1], UNKNOWN, ids[0]]
    answer = await api.admin.ChangeJobs(ChangeJobsRequest(queue="named", ids=JobIds(ids=asked), delete=DeleteChange()))
    assert (answer.matched, answer.changed) == (3, 2)
    assert [(result.job_id, result.status, result.state) for result in answer.results] == [
        (ids[1], CHANGE_STATUS_CHANGED, jobs.JOB_STATE_CREATED),
        (UNKNOWN, CHANGE_STATUS_NOT_FOUND, jobs.JOB_STATE_UNSPECIFIED),
        (ids[0], CHANGE_STATUS_CHANGED, jobs.JOB_STATE_CREATED),
    ]


async def test_what_says_who_calls_is_recorded(api: Api) -> None:
    name = "recorded"
    request = CreateQueueRequest(queue=Queue(name=name))
    await api.admin.CreateQueue(request, metadata=(("x-jobwire-actor", "ann"),))
    # One that is there is not created.
    await api.admin.CreateQueue(request, metadata=(("x-jobwire-actor", "bob"),))
    await publish(api, 2, queue=name)
    await api.admin.PurgeQueue(PurgeQueueRequest(queue=name, scope=PURGE_SCOPE_ALL))
    first = await api.admin.ListActions(ListActionsRequest(queue=name, page_size=1))
    rest = await api.admin.ListActions(ListActionsRequest(queue=name, page_token=first.next_page_token))
    [purge], [create] = first.actions, rest.actions
    assert (purge.what, purge.matched, purge.changed, json.loads(purge.selection)) == (
        "queue.purge",
        2,
        2,
        {"scope": "all"},
    )
    assert "grpc" in purge.actor
    assert (create.what, create.actor, rest.next_page_token) == ("queue.create", "ann", "")
    assert create.time.ToNanoseconds() < purge.time.ToNanoseconds()


async def test_a_queue_is_deleted_when_nothing_needs_it(api: Api) -> None:
    [job_id] = await publish(api, queue="doomed")
    answer = await refused(api.admin.DeleteQueue(DeleteQueueRequest(name="doomed")))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "QUEUE_NOT_EMPTY")
    async with Worker(api, "doomed") as worker:
        await worker.complete(*(await worker.receive(1)))
        answer = await refused(api.admin.DeleteQueue(DeleteQueueRequest(name="doomed")))
        assert (answer.reason, "1 session" in answer.message) == ("QUEUE_REFERENCED", True)
    request, calls = DeleteQueueRequest(name="doomed", force=True), 0
    while not calls or request.page_token:
        answer = await api.admin.DeleteQueue(request)
        request.page_token = answer.next_page_token
        calls += 1
    assert (answer.deleted, answer.deleted_jobs) == (True, 1)
    assert (await refused(api.admin.GetQueue(GetQueueRequest(name="doomed")))).reason == "QUEUE_NOT_FOUND"
    assert job_id not in {job.id for job in (await api.admin.ListJobs(ListJobsRequest())).jobs}


async def test_a_job_that_does_not_wait_is_not_updated(api: Api) -> None:
    [job_id] = await publish(api, queue="updated")
    await api.admin.UpdateJobs(UpdateJobsRequest(queue="updated", job_id=job_id, data="[7]", priority=3))
    async with Worker(api, "updated") as worker:
        [delivery] = await worker.receive(1)
        assert (delivery.data, delivery.priority) == ("[7]", 3)
        answer = await refused(api.admin.UpdateJobs(UpdateJobsRequest(queue="updated", job_id=job_id, data="1")))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    upsert = UpdateJobsRequest(queue="updated", key="k", data="1", upsert=True)
    created = (await api.admin.UpdateJobs(upsert)).created_job_id
    assert list((await api.admin.UpdateJobs(upsert)).job_ids) == [created]


@pytest.mark.usefixtures("in_small_steps")
async def test_a_page_may_be_short_and_be_followed_by_others(api: Api) -> None:
    ids = await publish(api, 25, queue="pages")
    request = ListJobsRequest(queue="pages", filter=JobFilter(data_contains='{"n": 3}'))
    pages = [await api.admin.ListJobs(request)]
    while pages[-1].next_page_token:
        request.page_token = pages[-1].next_page_token
        pages.append(await api.admin.ListJobs(request))
    assert [[job.id for job in page.jobs] for page in pages] == [[], [], [ids[3]]]
    assert [page.looked_at for page in pages] == [10, 10, 5]


async def test_the_python_client_does_it_from_a_thread_as_well(api: Api) -> None:
    await publish(api, 8, queue="scripted")

    def script() -> list[object]:
        seen: list[int] = []
        with sync.Client(api.server.address, actor="script") as client:
            where = JobWhere(data_contains={"n": 3})
            found = [job.data["n"] for job in client.admin.list_jobs("scripted", where=where)]
            dry = client.admin.change_jobs("cancel", "scripted", where=JobWhere(), dry_run=True)
            done = client.admin.change_jobs(
                "cancel",
                "scripted",
                where=JobWhere(),
                confirmation=dry.confirmation,
                on_progress=lambda matched, changed: seen.append(changed),
            )
            updated = client.admin.update_jobs("scripted", key="k", data=1, upsert=True)
            with pytest.raises(FailedPrecondition) as refusal:
                client.admin.delete_queue("scripted")
            purged = client.admin.purge_queue("scripted", "all")
            gone = client.admin.delete_queue("scripted")
            [action, *_] = client.admin.list_actions("scripted")
        counts = (dry.matched, done.changed, seen[-1], bool(updated.created_job_id), purged.changed, gone)
        return [found, counts, refusal.value.reason, (action.what, action.actor)]

    assert await asyncio.to_thread(script) == [
        [3],
        (8, 8, 8, True, 9, 0),
        "QUEUE_NOT_EMPTY",
        ("queue.delete", "script"),
    ]


async def test_what_takes_too_long_to_read_is_refused_with_advice(
    api: Api, shared_eye: Eye, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(api, queue="slow")
    # Shorter than a lock is waited for, so that a lock makes a read as slow as one likes.
    monkeypatch.setattr(database, "_READ_BOUND", {"statement_timeout": "200ms"})
    shared_eye.run("BEGIN")
    shared_eye.run("LOCK TABLE {}.live_job IN ACCESS EXCLUSIVE MODE")
    try:
        for call in (
            api.admin.ListJobs(ListJobsRequest(queue="slow")),
            api.admin.ChangeJobs(cancel("slow", dry_run=True)),
        ):
            answer = await refused(call)
            assert (answer.code, answer.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MUCH_TO_READ")
            assert "narrow it" in answer.message and answer.retry_after is None
    finally:
        shared_eye.run("ROLLBACK")
    assert len((await api.admin.ListJobs(ListJobsRequest(queue="slow"))).jobs) == 1
