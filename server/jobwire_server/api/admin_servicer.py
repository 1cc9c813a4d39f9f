"""AdminService: what operators call. A method reads its request, has the broker do it, and answers."""

# ruff: noqa: N802, ARG002  (names and arguments are gRPC's)

from __future__ import annotations

from typing import Any

import grpc.aio

from jobwire.v1 import admin_service_pb2 as pb
from jobwire.v1.admin_service_pb2_grpc import AdminServiceServicer
from jobwire_server.api import admin_requests, answers
from jobwire_server.api.actor import actor_of
from jobwire_server.api.calls import this_call
from jobwire_server.api.dead_letter_calls import DeadLetterCalls
from jobwire_server.api.operation_calls import OperationCalls
from jobwire_server.api.schedule_calls import ScheduleCalls
from jobwire_server.api.session_calls import SessionCalls
from jobwire_server.broker.broker import Broker
from jobwire_server.domain.queues import check_queue_name

Context = grpc.aio.ServicerContext[Any, Any]


class AdminServicer(DeadLetterCalls, OperationCalls, ScheduleCalls, SessionCalls, AdminServiceServicer):
    """Serves AdminService from one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def CreateQueue(self, request: pb.CreateQueueRequest, context: Context) -> pb.CreateQueueResponse:
        queue = admin_requests.new_queue(request.queue)
        this_call().note(queue=queue.name)
        stored, created = await self._broker.queues.create(queue, actor_of(context))
        this_call().note(created=created)
        return pb.CreateQueueResponse(queue=answers.queue(stored), created=created)

    async def GetQueue(self, request: pb.GetQueueRequest, context: Context) -> pb.GetQueueResponse:
        name = check_queue_name(request.name, "name")
        this_call().note(queue=name)
        queue = await self._broker.queues.find(name)
        counts = await self._broker.queues.counts([name])
        return pb.GetQueueResponse(queue=answers.queue(queue, counts[name]))

    async def ListQueues(self, request: pb.ListQueuesRequest, context: Context) -> pb.ListQueuesResponse:
        page = admin_requests.queue_page(request)
        # One more than the page holds: whether it is there says whether another page follows.
        found = await self._broker.queues.list(page.after, page.size + 1)
        queues = found[: page.size]
        counts = await self._broker.queues.counts([queue.name for queue in queues])
        return pb.ListQueuesResponse(
            queues=[answers.queue(queue, counts[queue.name]) for queue in queues],
            next_page_token=queues[-1].name if len(found) > page.size else "",
        )

    async def UpdateQueue(self, request: pb.UpdateQueueRequest, context: Context) -> pb.UpdateQueueResponse:
        name, patch = admin_requests.queue_patch(request.queue)
        this_call().note(queue=name)
        queue = await self._broker.change_queue(name, patch, actor_of(context))
        return pb.UpdateQueueResponse(queue=answers.queue(queue))

    async def PauseQueue(self, request: pb.PauseQueueRequest, context: Context) -> pb.PauseQueueResponse:
        queue = await self._pause(request.name, actor_of(context), paused=True)
        return pb.PauseQueueResponse(queue=queue)

    async def ResumeQueue(self, request: pb.ResumeQueueRequest, context: Context) -> pb.ResumeQueueResponse:
        queue = await self._pause(request.name, actor_of(context), paused=False)
        return pb.ResumeQueueResponse(queue=queue)

    async def _pause(self, name: str, by: str, *, paused: bool) -> pb.Queue:
        this_call().note(queue=check_queue_name(name, "name"))
        return answers.queue(await self._broker.pause_queue(name, by, paused=paused))

    async def CancelJobs(self, request: pb.CancelJobsRequest, context: Context) -> pb.CancelJobsResponse:
        name = check_queue_name(request.queue)
        ids = admin_requests.cancelled_ids(request)
        this_call().note(queue=name, jobs=len(ids))
        return answers.cancel_response(ids, await self._broker.cancel(name, ids, actor_of(context)))
