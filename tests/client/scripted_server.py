"""Jobwire's side of the protocol, played by script: a real gRPC server on a loopback port that does what a test says.

Every Subscribe becomes a Stream in the test's hands. Every other call is kept, and answered by a function that the test
may replace; the answers that stand here are those of a server on which nothing goes wrong.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc_status import rpc_status

from jobwire.v1 import queue_service_pb2 as pb
from jobwire.v1.job_pb2 import JOB_STATE_COMPLETED, Job
from jobwire.v1.queue_service_pb2_grpc import QueueServiceServicer, add_QueueServiceServicer_to_server

PATIENCE = 20.0
"""After how many seconds a wait of a test has failed."""


class RefusalError(Exception):
    """Raised by an answering function: the call ends with this status."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str = "",
        text: str = "refused by script",
        *,
        retry_after: float | None = None,
        field: str = "",
    ) -> None:
        super().__init__(text)
        details: list[Message] = []
        if reason:
            details.append(ErrorInfo(domain="jobwire", reason=reason))
        if retry_after is not None:
            details.append(RetryInfo(retry_delay=seconds(retry_after)))
        if field:
            details.append(BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=text)]))
        packed = []
        for detail in details:
            packed.append(AnyMessage())
            packed[-1].Pack(detail)
        self.status = rpc_status.to_status(Status(code=code.value[0], message=text, details=packed))


def seconds(span: float) -> Duration:
    """A protobuf Duration."""
    return Duration(seconds=int(span), nanos=round((span - int(span)) * 1e9))


def delivery(handle: str, data: str = "null", **fields: Any) -> pb.Delivery:
    """A delivery of the job `job-of-<handle>` from queue `q`."""
    created = Timestamp()
    created.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    base = {"queue": "q", "job_id": f"job-of-{handle}", "attempt": 1, "retry_limit": 2}
    return pb.Delivery(handle=handle, data=data, create_time=created, expire_in=seconds(900), **{**base, **fields})


class Stream:
    """One Subscribe call in the hands of the test."""

    def __init__(
        self, request: pb.SubscribeRequest, context: grpc.aio.ServicerContext[pb.SubscribeRequest, pb.SubscribeResponse]
    ) -> None:
        self.request = request
        self.left = asyncio.Event()
        """Set when the call is over, whoever ended it."""
        self._context = context
        self._sequence = 0
        self._writing = asyncio.Lock()
        self._over: asyncio.Future[RefusalError | None] = asyncio.get_running_loop().create_future()

    async def send(self, unknown: bytes = b"", **event: Any) -> int:
        """Send an event, with fields that the contract does not know as they travel; returns its sequence."""
        async with self._writing:
            self._sequence += 1
            response = pb.SubscribeResponse(sequence=self._sequence, **event)
            response.MergeFromString(unknown)
            await self._context.write(response)
            return self._sequence

    async def open(
        self,
        session: str = "s-1",
        *,
        heartbeat: float = 5.0,
        grace: float = 15.0,
        lost: Sequence[str] = (),
        unknown: bytes = b"",
    ) -> None:
        """Say `opened`, as a resume does where the client asked for one."""
        resume = self.request.HasField("resume")
        await self.send(
            unknown,
            opened=pb.SessionOpened(
                session_id=self.request.resume.session_id if resume else session,
                epoch=self.request.resume.epoch if resume else 1,
                resumed=resume,
                lost=lost,
                max_in_flight=self.request.max_in_flight,
                heartbeat_interval=seconds(heartbeat),
                resume_grace=seconds(grace),
            ),
        )

    async def deliver(self, *deliveries: pb.Delivery) -> int:
        """Send jobs."""
        return await self.send(deliveries=pb.Deliveries(deliveries=deliveries))

    async def heartbeat(self) -> int:
        """Ask for a sign of life."""
        return await self.send(heartbeat=pb.Heartbeat())

    async def cancel(self, handle: str, reason: pb.CancelReason.ValueType = pb.CANCEL_REASON_REQUESTED) -> None:
        """Tell the worker to stop a delivery."""
        await self.send(cancellation=pb.Cancellation(handle=handle, reason=reason, grace=seconds(30)))

    async def drain(self, resume_within: float = 300.0, reconnect_delay: float = 0.0) -> None:
        """Say `draining`, and end the stream in order."""
        await self.send(
            draining=pb.Draining(resume_within=seconds(resume_within), reconnect_delay=seconds(reconnect_delay))
        )
        self.end()

    @property
    def over(self) -> bool:
        """Whether the call is over, or about to be."""
        return self._over.done() or self.left.is_set()

    def end(self, refusal: RefusalError | None = None) -> None:
        """End the stream: in order, or with a status."""
        if not self._over.done():
            self._over.set_result(refusal)

    async def serve(self) -> None:
        """Last as long as the call does."""
        try:
            refusal = await self._over
            if refusal is not None:
                await self._context.abort_with_status(refusal.status)
        finally:
            self.left.set()


CUT = RefusalError(grpc.StatusCode.UNAVAILABLE)
"""What a client sees when the connection breaks."""


class ScriptedServer(QueueServiceServicer):
    """Serves on a loopback port; stopped and started again it keeps its address."""

    def __init__(self) -> None:
        self.address = "127.0.0.1:0"
        self.calls: list[Message] = []
        """Every request but Subscribe, in the order of arrival."""
        self.answer_ack: Callable[[pb.AckRequest], pb.AckResponse | Awaitable[pb.AckResponse]] = all_applied
        self.answer_publish: Callable[[pb.PublishRequest], pb.PublishResponse | Awaitable[pb.PublishResponse]] = (
            all_stored
        )
        self.answer_get_job: Callable[[pb.GetJobRequest], pb.GetJobResponse | Awaitable[pb.GetJobResponse]] = (
            finished_job
        )
        self._streams: asyncio.Queue[Stream] = asyncio.Queue()
        self._arrived = asyncio.Condition()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Serve, at the same address as before."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_QueueServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(self.address)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """Be gone at once, streams and all."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def stream(self) -> Stream:
        """The next Subscribe call."""
        async with asyncio.timeout(PATIENCE):
            return await self._streams.get()

    async def opened(self, session: str = "s-1", **terms: Any) -> Stream:
        """The next Subscribe call, answered by `opened`."""
        stream = await self.stream()
        await stream.open(session, **terms)
        return stream

    def no_stream(self) -> bool:
        """Whether no Subscribe call waits to be taken."""
        return self._streams.empty()

    async def ack(self, wanted: Callable[[pb.AckRequest], bool]) -> pb.AckRequest:
        """The first Ack that is wanted, whether it came already or is yet to come."""
        async with asyncio.timeout(PATIENCE), self._arrived:
            while True:
                for call in self.acks:
                    if wanted(call):
                        return call
                await self._arrived.wait()

    async def settled(self, handle: str) -> pb.AckItem:
        """How a delivery was settled first."""

        def settles(item: pb.AckItem) -> bool:
            return item.handle == handle and item.WhichOneof("outcome") != "extend"

        ack = await self.ack(lambda ack: any(map(settles, ack.items)))
        return next(filter(settles, ack.items))

    @property
    def acks(self) -> list[pb.AckRequest]:
        """Every Ack so far."""
        return [call for call in self.calls if isinstance(call, pb.AckRequest)]

    @property
    def publishes(self) -> list[pb.PublishRequest]:
        """Every Publish so far."""
        return [call for call in self.calls if isinstance(call, pb.PublishRequest)]

    async def arrived(self, kind: type[Message], count: int) -> None:
        """Wait until so many requests of a kind have arrived."""
        async with asyncio.timeout(PATIENCE), self._arrived:
            await self._arrived.wait_for(lambda: sum(isinstance(call, kind) for call in self.calls) >= count)

    async def Subscribe(self, request: pb.SubscribeRequest, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        stream = Stream(request, context)
        self._streams.put_nowait(stream)
        await stream.serve()

    async def Ack(self, request: pb.AckRequest, context: Any) -> Any:  # noqa: N802
        return await self._answer(request, context, self.answer_ack)

    async def Publish(self, request: pb.PublishRequest, context: Any) -> Any:  # noqa: N802
        return await self._answer(request, context, self.answer_publish)

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> Any:  # noqa: N802
        return await self._answer(request, context, self.answer_get_job)

    async def _answer(self, request: Any, context: Any, answer: Callable[[Any], Any]) -> Any:
        async with self._arrived:
            self.calls.append(request)
            self._arrived.notify_all()
        try:
            response = answer(request)
            return await response if inspect.isawaitable(response) else response
        except RefusalError as refusal:
            await context.abort_with_status(refusal.status)


def all_applied(request: pb.AckRequest) -> pb.AckResponse:
    """Every statement counts."""
    results = [pb.AckResult(status=pb.ACK_STATUS_APPLIED) for _ in request.items]
    return pb.AckResponse(results=results, session_alive=True)


def all_stored(request: pb.PublishRequest) -> pb.PublishResponse:
    """Every job is new."""
    return pb.PublishResponse(results=[pb.PublishResult(job_id=job.id, created=True) for job in request.jobs])


def finished_job(request: pb.GetJobRequest) -> pb.GetJobResponse:
    """Every job is completed."""
    return pb.GetJobResponse(
        job=Job(id=request.job_id, queue=request.queue or "q", state=JOB_STATE_COMPLETED, output="[1]", revision="9")
    )
