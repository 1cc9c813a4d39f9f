"""QueueService: what publishers and workers call. A method reads its request, has the broker do it, and answers."""

# ruff: noqa: N802, ARG002  (names and arguments are gRPC's)

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from jobwire.v1 import queue_service_pb2 as pb
from jobwire.v1.queue_service_pb2_grpc import QueueServiceServicer
from jobwire_server.api import answers, requests
from jobwire_server.api.calls import this_call
from jobwire_server.broker.broker import Broker
from jobwire_server.broker.messages import Deliveries, Draining, Opened
from jobwire_server.broker.stream import Stream
from jobwire_server.domain.errors import JobwireError
from jobwire_server.domain.queues import check_queue_name

Context = grpc.aio.ServicerContext[Any, Any]


class QueueServicer(QueueServiceServicer):
    """Serves QueueService from one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._checking = asyncio.Lock()

    async def Publish(self, request: pb.PublishRequest, context: Context) -> pb.PublishResponse:
        call = this_call()
        call.note(queue=request.queue[:80], jobs=len(request.jobs))
        size = request.ByteSize()
        with self._broker.admission.admit(size, len(request.jobs)):
            name = check_queue_name(request.queue)
            # A request that is refused must not have made its queue.
            limit = await self._broker.queues.limit_for(name)
            # One at a time, so that a turn of the event loop has one slice of this work at most.
            async with self._checking:
                jobs = await requests.new_jobs(request, size, limit)
            # Its payloads are in the jobs now, and need not be held twice while these wait.
            del request
            queue = await self._broker.queues.for_publish(name)
            results = await self._broker.publish(queue, jobs)
        call.note(created=sum(result.created for result in results))
        return answers.publish_response(results)

    async def Subscribe(  # type: ignore[override]  # the stubs know only generators; we write
        self, request: pb.SubscribeRequest, context: Context
    ) -> None:
        call = this_call()
        call.note(queues=[name[:80] for name in request.queues[:5]], worker=request.worker[:80])
        terms = requests.subscription(request)
        async with self._broker.subscribe(terms) as stream:
            await self._write_all(stream, context)

    async def _write_all(self, stream: Stream, context: Context) -> None:
        """Writes events until the stream ends, and notes why it did."""
        call = this_call()
        sequence = delivered = 0
        drained = False
        ended = "the connection broke, or the client left"
        try:
            while (event := await stream.next_event()) is not None:
                sequence += 1
                if isinstance(event, Opened):
                    call.note(session_id=str(event.session_id), epoch=event.epoch, resumed=event.resumed)
                await context.write(answers.stream_message(event, sequence))
                stream.written(sequence)
                if isinstance(event, Deliveries):
                    delivered += len(event.deliveries)
                drained = isinstance(event, Draining)
            ended = "this replica drains" if drained else "the client closed its session"
        except JobwireError as error:
            ended = error.reason
            raise
        finally:
            call.note(ended=ended, events=sequence, deliveries=delivered)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        query = requests.job_query(request)
        this_call().note(queue=query.queue, job_id=str(query.job_id))
        job = await self._broker.get_job(
            query.queue, query.job_id, query.wait_ms, query.known_revision, query.until_finished
        )
        return pb.GetJobResponse(job=answers.job(job))

    async def Ack(self, request: pb.AckRequest, context: Context) -> pb.AckResponse:
        call = this_call()
        call.note(items=len(request.items), session_id=request.session_id[:80])
        call.quiet = not request.items and not request.close_session
        ack = requests.ack(request)
        if queues := requests.queues_of_outputs(ack):
            requests.check_outputs(ack, {queue: await self._broker.queues.limit_for(queue) for queue in queues})
        return answers.ack_response(await self._broker.ack(ack))
