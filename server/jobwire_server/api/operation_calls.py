"""The calls of AdminService about many jobs, purging and deleting queues, and the record of what was done."""

# ruff: noqa: N802, ARG002  (names and arguments are gRPC's)

from __future__ import annotations

from typing import Any

import grpc.aio
import orjson

from jobwire.v1 import admin_service_pb2
from jobwire.v1 import operations_pb2 as pb
from jobwire.v1.job_pb2 import JobState
from jobwire_server.api import answers, operation_requests
from jobwire_server.api.actor import actor_of
from jobwire_server.api.calls import this_call
from jobwire_server.api.operation_requests import ChangeCall
from jobwire_server.broker.broker import Broker
from jobwire_server.broker.operations import Walked
from jobwire_server.domain.operations import Action, Changed, Order
from jobwire_server.domain.queues import check_queue_name

Context = grpc.aio.ServicerContext[Any, Any]


class OperationCalls:
    """Part of AdminServicer."""

    _broker: Broker

    async def ListJobs(
        self, request: admin_service_pb2.ListJobsRequest, context: Context
    ) -> admin_service_pb2.ListJobsResponse:
        page = operation_requests.job_page(request)
        this_call().note(queue=page.queue)
        found = await self._broker.operations.list_jobs(page.queue, page.wanted, page.place, page.size)
        return admin_service_pb2.ListJobsResponse(
            jobs=map(answers.job, found.jobs),
            next_page_token=operation_requests.page_token(found.next, page.queue),
            looked_at=found.looked_at,
        )

    async def ChangeJobs(self, request: pb.ChangeJobsRequest, context: Context) -> pb.ChangeJobsResponse:
        call = operation_requests.change_call(request)
        this_call().note(queue=call.queue, change=call.change, dry_run=call.dry_run)
        if call.ids is not None:
            return _about_ids(await self._change_ids(call, actor_of(context)), dry_run=call.dry_run)
        walked = await self._change_matching(call, actor_of(context))
        return pb.ChangeJobsResponse(
            matched=walked.walk.matched,
            changed=walked.walk.changed,
            looked_at=walked.looked_at,
            results=map(_result, walked.sample),
            confirmation=operation_requests.confirmation(walked.walk, call.about)
            if call.dry_run and walked.walk.place is None
            else "",
            next_page_token=_next(walked, call),
        )

    async def _change_ids(self, call: ChangeCall, by: str) -> list[Changed]:
        assert call.queue is not None
        assert call.ids is not None
        if call.dry_run:
            return await self._broker.operations.would_change(call.queue, call.ids, call.change)
        return await self._broker.operations.change(call.queue, call.ids, _order(call, by))

    async def _change_matching(self, call: ChangeCall, by: str, what: str = "") -> Walked:
        walked = await self._broker.operations.change_matching(
            call.queue, call.wanted, _order(call, by, what), call.walk, dry_run=call.dry_run
        )
        this_call().note(matched=walked.walk.matched, changed=walked.walk.changed)
        return walked

    async def UpdateJobs(self, request: pb.UpdateJobsRequest, context: Context) -> pb.UpdateJobsResponse:
        name = check_queue_name(request.queue)
        this_call().note(queue=name)
        queue = await self._broker.queues.find(name)
        call = operation_requests.update_call(request, queue.max_data_bytes)
        updated = await self._broker.operations.update(queue, call.patch, call.job, actor_of(context))
        return pb.UpdateJobsResponse(job_ids=map(str, updated.ids), created_job_id=str(updated.created or ""))

    async def PurgeQueue(self, request: pb.PurgeQueueRequest, context: Context) -> pb.PurgeQueueResponse:
        call = operation_requests.purge_call(request)
        this_call().note(queue=call.queue, dry_run=call.dry_run)
        walked = await self._change_matching(call, actor_of(context), "queue.purge")
        return pb.PurgeQueueResponse(
            matched=walked.walk.matched, deleted=walked.walk.changed, next_page_token=_next(walked, call)
        )

    async def DeleteQueue(self, request: pb.DeleteQueueRequest, context: Context) -> pb.DeleteQueueResponse:
        name = check_queue_name(request.name, "name")
        this_call().note(queue=name)
        before = operation_requests.removal(request)
        removal = await self._broker.queue_removal.delete(name, before, actor_of(context), force=request.force)
        return pb.DeleteQueueResponse(
            deleted=removal.step is None,
            deleted_jobs=removal.jobs,
            next_page_token=operation_requests.removal_token(name, removal),
        )

    async def ListActions(self, request: pb.ListActionsRequest, context: Context) -> pb.ListActionsResponse:
        page = operation_requests.action_page(request)
        found = await self._broker.operations.list_actions(page.queue, page.actor, page.before, page.size + 1)
        actions = found[: page.size]
        return pb.ListActionsResponse(
            actions=map(_action, actions), next_page_token=str(actions[-1].id) if len(found) > page.size else ""
        )


def _order(call: ChangeCall, by: str, what: str = "") -> Order:
    return Order(call.change, call.queue, by, call.selection, call.destination, what)


def _next(walked: Walked, call: ChangeCall) -> str:
    return operation_requests.walk_token(walked.walk, call.about, "count" if call.dry_run else "change")


def _about_ids(results: list[Changed], *, dry_run: bool) -> pb.ChangeJobsResponse:
    return pb.ChangeJobsResponse(
        matched=len(results),
        changed=0 if dry_run else sum(result.status.done for result in results),
        results=map(_result, results),
    )


def _result(result: Changed) -> pb.ChangeResult:
    return pb.ChangeResult(
        queue=result.queue,
        job_id=str(result.id),
        status=pb.ChangeStatus.ValueType(result.status),
        state=JobState.ValueType(result.state or 0),
    )


def _action(action: Action) -> pb.Action:
    return pb.Action(
        id=action.id,
        time=answers.timestamp(action.at),
        actor=action.actor,
        what=action.what,
        queue=action.queue or "",
        selection=orjson.dumps(action.selection).decode(),
        matched=action.matched,
        changed=action.changed,
    )
