"""Stubs that write down what goes over them, for the real client and for programs on bare stubs alike."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

import jobwire.connection
from jobwire.errors import error_from_rpc
from jobwire.v1 import queue_service_pb2 as pb
from jobwire.v1.admin_service_pb2 import (
    CancelJobsRequest,
    CancelJobsResponse,
    CancelStatus,
    PauseQueueRequest,
    PauseQueueResponse,
    ResumeQueueRequest,
    ResumeQueueResponse,
)
from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from jobwire.wire import from_duration
from tests.chaos import history
from tests.chaos.history import Record


def record_all(record: Record) -> None:
    """Has every Connection of the client that is made from now on write into `record`."""
    module: Any = jobwire.connection
    module.QueueServiceStub = lambda channel: RecordingQueue(channel, record)
    module.AdminServiceStub = lambda channel: RecordingAdmin(channel, record)


class RecordingQueue:
    """QueueService, written down."""

    def __init__(self, channel: grpc.aio.Channel, record: Record) -> None:
        self._stub: Any = QueueServiceStub(channel)
        self._record = record
        self.GetJob = self._stub.GetJob

    async def Publish(self, request: pb.PublishRequest, **more: Any) -> pb.PublishResponse:  # noqa: N802
        call = self._record.next_call()
        jobs = [(job.id, job.priority) for job in request.jobs]
        labels = [(job.key, job.group.id, job.group.tier) for job in request.jobs]
        self._record.note(history.Publish, call, request.queue, jobs, labels if any(map(any, labels)) else [])
        response: pb.PublishResponse = await self._answered(call, self._stub.Publish(request, **more))
        results = [(result.job_id, result.created) for result in response.results]
        self._record.note(history.Published, call, results)
        return response

    async def Ack(self, request: pb.AckRequest, **more: Any) -> pb.AckResponse:  # noqa: N802
        call = self._record.next_call()
        items = [(item.handle, _word(item)) for item in request.items]
        wanted = request.max_in_flight if request.HasField("max_in_flight") else None
        self._record.note(
            history.Ack, call, request.session_id, request.last_sequence, wanted, request.close_session, items
        )
        response: pb.AckResponse = await self._answered(call, self._stub.Ack(request, **more))
        statuses = [pb.AckStatus.Name(result.status).removeprefix("ACK_STATUS_") for result in response.results]
        self._record.note(history.Acked, call, statuses, response.session_alive)
        return response

    def Subscribe(self, request: pb.SubscribeRequest, **more: Any) -> RecordingStream:  # noqa: N802
        call = self._record.next_call()
        self._record.note(
            history.Subscribe,
            call,
            list(request.queues),
            request.max_in_flight,
            from_duration(request.heartbeat_interval),
            from_duration(request.resume_grace),
            request.resume.session_id,
            request.resume.epoch,
            list(request.resume.held),
        )
        return RecordingStream(self._stub.Subscribe(request, **more), call, self._record)

    async def _answered(self, call: int, answer: Any) -> Any:
        return await _answered(self._record, call, answer)


class RecordingAdmin:
    """AdminService, of which the cancellations and pauses are written down."""

    def __init__(self, channel: grpc.aio.Channel, record: Record) -> None:
        self._stub: Any = AdminServiceStub(channel)
        self._record = record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stub, name)

    async def CancelJobs(self, request: CancelJobsRequest, **more: Any) -> CancelJobsResponse:  # noqa: N802
        call = self._record.next_call()
        self._record.note(history.Cancel, call, request.queue, list(request.job_ids))
        response: CancelJobsResponse = await _answered(self._record, call, self._stub.CancelJobs(request, **more))
        statuses = [CancelStatus.Name(result.status).removeprefix("CANCEL_STATUS_") for result in response.results]
        self._record.note(history.CancelAnswered, call, statuses)
        return response

    async def PauseQueue(self, request: PauseQueueRequest, **more: Any) -> PauseQueueResponse:  # noqa: N802
        answer: PauseQueueResponse = await self._pause(request.name, True, self._stub.PauseQueue, request, **more)
        return answer

    async def ResumeQueue(self, request: ResumeQueueRequest, **more: Any) -> ResumeQueueResponse:  # noqa: N802
        answer: ResumeQueueResponse = await self._pause(request.name, False, self._stub.ResumeQueue, request, **more)
        return answer

    async def _pause(self, queue: str, paused: bool, method: Any, request: Any, **more: Any) -> Any:
        call = self._record.next_call()
        self._record.note(history.Pause, call, queue, paused)
        response = await _answered(self._record, call, method(request, **more))
        self._record.note(history.PauseAnswered, call)
        return response


class RecordingStream:
    """A Subscribe call whose events and end are written down as they are read."""

    def __init__(self, call: Any, number: int, record: Record) -> None:
        self._call = call
        self._number = number
        self._record = record
        self._over = False

    async def read(self) -> Any:
        try:
            event = await self._call.read()
        except grpc.aio.AioRpcError as failure:
            self._ended(failure.code().name, error_from_rpc(failure, "").reason)
            raise
        except asyncio.CancelledError:
            self._ended("CANCELLED", "")
            raise
        if isinstance(event, pb.SubscribeResponse):
            self._note(event)
        else:
            self._ended("OK", "")
        return event

    def cancel(self) -> bool:
        self._ended("CANCELLED", "")
        return bool(self._call.cancel())

    def _ended(self, code: str, reason: str) -> None:
        if not self._over:
            self._over = True
            self._record.note(history.Ended, self._number, code, reason)

    def _note(self, event: pb.SubscribeResponse) -> None:
        note, number, sequence = self._record.note, self._number, event.sequence
        match event.WhichOneof("event"):
            case "opened":
                opened = event.opened
                note(history.Opened, number, opened.session_id, opened.epoch, opened.resumed, list(opened.lost))
            case "deliveries":
                jobs = [
                    (job.handle, job.queue, job.job_id, job.attempt, job.retry_count, job.priority)
                    for job in event.deliveries.deliveries
                ]
                note(history.Delivered, number, sequence, jobs)
            case "cancellation":
                reason = pb.CancelReason.Name(event.cancellation.reason).removeprefix("CANCEL_REASON_")
                note(history.Cancelled, number, sequence, event.cancellation.handle, reason)
            case "heartbeat":
                note(history.Heartbeat, number, sequence)
            case "draining":
                note(history.Draining, number, sequence, from_duration(event.draining.resume_within))


def _word(item: pb.AckItem) -> str | None:
    return "permanent" if item.fail.permanent else item.WhichOneof("outcome")


async def _answered(record: Record, call: int, answer: Any) -> Any:
    try:
        return await answer
    except grpc.aio.AioRpcError as failure:
        record.note(history.Failed, call, failure.code().name, error_from_rpc(failure, "").reason)
        raise
    except asyncio.CancelledError:
        record.note(history.Failed, call, "CANCELLED", "")
        raise
