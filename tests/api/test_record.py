"""Whatever an operator may change leaves a record: every call of AdminService that is no mere look."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.duration_pb2 import Duration

from jobwire.v1 import admin_service_pb2 as admin
from jobwire.v1 import dead_letters_pb2 as letters
from jobwire.v1 import operations_pb2 as operations
from jobwire.v1 import schedule_pb2 as schedules
from jobwire.v1.job_pb2 import JobOptions
from jobwire.v1.queue_service_pb2 import AckItem, Fail, JobSpec, PublishRequest
from jobwire.v1.session_pb2 import DrainSessionRequest

from .conftest import Api, Serve
from .worker import Worker

LOOKS = ("Get", "List", "Preview")


async def arrived(api: Api, queue: str, jobs: int) -> None:
    """Waits until so many jobs are ready."""
    async with asyncio.timeout(60):
        while (await api.admin.GetQueue(admin.GetQueueRequest(name=queue))).queue.counts.ready < jobs:
            await asyncio.sleep(0.05)


async def test_every_change_by_an_operator_is_recorded(serve: Serve) -> None:
    async with serve() as api:
        made = {}

        async def call(name: str, request: object) -> Any:
            made[name] = await getattr(api.admin, name)(request)
            return made[name]

        await call("CreateQueue", admin.CreateQueueRequest(queue=admin.Queue(name="dead")))
        fifo = admin.Queue(
            name="orders",
            policy=admin.QUEUE_POLICY_KEY_STRICT_FIFO,
            options=JobOptions(dead_letter="dead", retry_limit=0),
        )
        await call("CreateQueue", admin.CreateQueueRequest(queue=fifo))
        await call("UpdateQueue", admin.UpdateQueueRequest(queue=admin.Queue(name="orders", max_depth=50)))
        await call("PauseQueue", admin.PauseQueueRequest(name="orders"))
        await call("ResumeQueue", admin.ResumeQueueRequest(name="orders"))
        jobs = [JobSpec(key=key) for key in ("a", "b", "c", "d")]
        ids = [result.job_id for result in (await api.queue.Publish(PublishRequest(queue="orders", jobs=jobs))).results]
        await call("UpdateJobs", operations.UpdateJobsRequest(queue="orders", job_id=ids[3], priority=4))
        await call("CancelJobs", admin.CancelJobsRequest(queue="orders", job_ids=ids[3:]))
        cancelled = operations.ChangeJobsRequest(queue="orders", ids=operations.JobIds(ids=ids[2:3]))
        cancelled.cancel.SetInParent()
        await call("ChangeJobs", cancelled)
        async with Worker(api, "idle") as worker:
            await call("DrainSession", DrainSessionRequest(session_id=worker.session_id))
        async with Worker(api, "orders", max_in_flight=5) as worker:
            for delivery in await worker.receive(2):
                await worker.ack(AckItem(handle=delivery.handle, fail=Fail(type="E", message="no", permanent=True)))
        await arrived(api, "dead", 2)
        await call("RedriveJobs", letters.RedriveJobsRequest(queue="dead", limit=1, destination="idle"))
        skip = letters.UnblockKeysRequest(queue="orders", keys=["a"], action=letters.UNBLOCK_ACTION_SKIP)
        await call("UnblockKeys", skip)
        tick = schedules.Schedule(name="tick", queue="dead", every=Duration(seconds=3_600))
        await call("PutSchedule", schedules.PutScheduleRequest(schedule=tick))
        for name in ("PauseSchedule", "ResumeSchedule", "RunSchedule", "DeleteSchedule"):
            await call(name, getattr(schedules, f"{name}Request")(name="tick"))
        await call("PurgeQueue", operations.PurgeQueueRequest(queue="dead", scope=operations.PURGE_SCOPE_ALL))
        removal = operations.DeleteQueueRequest(name="orders", force=True)
        while not (answer := await call("DeleteQueue", removal)).deleted:
            removal.page_token = answer.next_page_token

        methods = [method.name for method in admin.DESCRIPTOR.services_by_name["AdminService"].methods]
        assert {name for name in methods if not name.startswith(LOOKS)} == set(made)
        actions = (await api.admin.ListActions(operations.ListActionsRequest(page_size=100))).actions
        assert {action.what for action in actions} == {
            "job.cancel",
            "job.redrive",
            "job.update",
            "key.unblock",
            "queue.create",
            "queue.delete",
            "queue.pause",
            "queue.purge",
            "queue.resume",
            "queue.update",
            "schedule.delete",
            "schedule.pause",
            "schedule.put",
            "schedule.resume",
            "schedule.run",
            "session.drain",
        }
