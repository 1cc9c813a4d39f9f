"""The session of one handler: its streams one after the other, and what the server says on them.

The state machine is that of docs/protocol.md, "the life of a worker". Opening and Resuming are one loop here: a session
that has an id is resumed under a higher epoch, one that has none is opened.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

import grpc.aio

from jobwire.acking import Acker, stop_reason
from jobwire.connection import Connection
from jobwire.crew import Crew
from jobwire.errors import (
    InvalidArgument,
    JobwireError,
    PermissionDenied,
    Unauthenticated,
    Unimplemented,
    error_from_rpc,
)
from jobwire.outcome import Released, StopReason
from jobwire.retrying import Backoff
from jobwire.running import Runner
from jobwire.standing import Standing
from jobwire.v1 import queue_service_pb2 as pb
from jobwire.waiting import asked_to_end, first_of, set_within
from jobwire.wire import MAX_CALL_ITEMS, from_duration

log = logging.getLogger(__name__)

TIME_TO_END = 2.0
"""How long handlers may take to end after they were cancelled because the worker stops, in seconds."""

TIME_TO_LEAVE = 4.0
"""How long after the grace the worker may take in all, for the ends of handlers and the last Acks, in seconds."""

LATE = 0.25
"""A timer that goes off so many seconds late says that this loop stood still, and not that the server was silent."""

_OVER = ("SESSION_LOST", "SESSION_TAKEN_OVER")
_USELESS_TO_REPEAT = (InvalidArgument, PermissionDenied, Unauthenticated, Unimplemented)


class Session:
    """Takes jobs of a handler's queues and has them run, until it is told to stop.

    Args:
        connection: shared by all sessions of the worker.
        request: names queues, worker and the terms asked for; the template of every Subscribe.
        concurrency: how many jobs may run at once.
        runner: runs the handler.
        on_quiet: called when the server asks the worker to leave.
    """

    def __init__(
        self,
        connection: Connection,
        request: pb.SubscribeRequest,
        *,
        concurrency: int,
        runner: Runner,
        on_quiet: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._request = request
        self._queue = ", ".join(request.queues)
        self._on_quiet = on_quiet
        self._standing = Standing()
        self._acker = Acker(
            connection,
            self._standing,
            credits_wanted=self._credits_wanted,
            on_stop=self._told_by_ack,
            on_lost=self._lost_by_ack,
        )
        self._crew = Crew(concurrency, runner, self._acker)
        self._call: grpc.aio.UnaryStreamCall[pb.SubscribeRequest, pb.SubscribeResponse] | None = None
        # Over which of the connection's channels it goes.
        self._line = 0
        self._quiet = False
        self._ever_opened = False
        self._trouble = ""
        # Clear while a Subscribe waits for its first event.
        self._answered = asyncio.Event()
        self._answered.set()
        self._backoff = Backoff()

    async def run(self) -> None:
        """Work until cancelled. Raises JobwireError if the server refuses the queue, the terms or the credentials."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._acker.run(), name=f"jobwire acks {self._queue}")
                tasks.create_task(self._watch(), name=f"jobwire silence {self._queue}")
                await self._keep_open()
        finally:
            # Nothing is left after an orderly stop.
            self._crew.drop_all()

    async def stop(self, grace: float, hurry: asyncio.Event) -> None:
        """Take no more jobs, finish or give back those in hand, report their ends, and leave. Then cancel `run`.

        Args:
            grace: how long handlers may take to finish, in seconds.
            hurry: ends the grace early.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        self._go_quiet()
        # A session that is just being opened could not be closed otherwise, and would keep its first jobs for a grace.
        await first_of(self._answered.wait(), hurry.wait(), within=1)
        await first_of(self._crew.idle(), hurry.wait(), within=grace)
        self._crew.stop_all(StopReason.STOPPING)
        end = TIME_TO_LEAVE + (loop.time() if hurry.is_set() else deadline)
        await first_of(self._crew.idle(), within=TIME_TO_END)
        self._crew.abandon()
        await first_of(self._acker.all_answered(), hurry.wait(), within=end - loop.time() - 2)
        await first_of(self._acker.all_answered(), within=1)
        await self._acker.close_session(max(1.0, end - loop.time()))

    async def finish(self) -> None:
        """Take no more jobs, and wait until those in hand have ended; to be followed by `stop`."""
        self._go_quiet()
        await self._crew.idle()

    def _go_quiet(self) -> None:
        self._quiet = True
        self._acker.look_again()

    async def _keep_open(self) -> None:
        while True:
            if self._quiet and not self._standing.held:
                return  # nothing to come back for; what is still unanswered the Acker sends without a stream
            if not self._standing.id:
                await self._crew.has_place()
            pause = await self._one_stream()
            await asyncio.sleep(pause)

    async def _one_stream(self) -> float:
        """Subscribe, and follow the stream to its end. Returns the pause before the next one, in seconds."""
        resuming = bool(self._standing.id)
        try:
            metadata = self._connection.metadata()
        except Unauthenticated as error:
            return self._refused(error, resuming)
        self._line = self._connection.line
        self._call = self._connection.queue.Subscribe(self._next_request(), metadata=metadata)
        try:
            while isinstance(event := await self._call.read(), pb.SubscribeResponse):
                self._standing.event(event.sequence)
                if event.HasField("draining"):
                    return self._drained(event.draining)
                self._take(event)
            if not self._quiet:
                log.info("queue %s: the server ended the stream; resuming", self._queue)
        except grpc.aio.AioRpcError as failure:
            return self._refused(error_from_rpc(failure, self._connection.target), resuming)
        except asyncio.CancelledError:
            if asked_to_end():
                raise
            # Only the call was cancelled: since it was silent, its connection was left, or the session is over.
        finally:
            self._call.cancel()
            self._call = None
            self._answered.set()
        return self._backoff.pause()

    def _take(self, event: pb.SubscribeResponse) -> None:
        match event.WhichOneof("event"):
            case "opened":
                self._opened(event.opened)
            case "deliveries":
                self._backoff.reset()
                self._delivered(event.deliveries.deliveries)
            case "cancellation":
                self._crew.stop(event.cancellation.handle, stop_reason(event.cancellation.reason))
            case "heartbeat":
                self._backoff.reset()
                self._acker.beat()
            case "quiet":
                self._on_quiet()
            case _:
                pass  # a sign of life; newer servers may say more

    def _next_request(self) -> pb.SubscribeRequest:
        self._answered.clear()
        standing = self._standing
        # One credit at least may be named here; an Ack corrects that as soon as the stream is open.
        places = max(1, self._credits_wanted())
        standing.subscribing(credits_told=places)
        request = pb.SubscribeRequest()
        request.CopyFrom(self._request)
        request.max_in_flight = places
        if standing.id:
            # Beyond what one call may name, what still runs counts for more than what only waits for an answer.
            held = sorted(standing.held, key=lambda handle: not self._crew.runs(handle))[:MAX_CALL_ITEMS]
            request.resume.CopyFrom(pb.Resume(session_id=standing.id, epoch=standing.epoch, held=held))
        return request

    def _opened(self, opened: pb.SessionOpened) -> None:
        if self._standing.id and self._standing.id != opened.session_id:
            self._lost("the server opened another one")
        self._standing.opened(opened)
        self._ever_opened = True
        self._trouble = ""
        self._answered.set()
        # Older servers do not tell their version.
        server = f", server {opened.server_version}" if opened.server_version else ""
        if opened.resumed:
            log.info("queue %s: resumed session %s (epoch %d%s)", self._queue, opened.session_id, opened.epoch, server)
        else:
            log.info("queue %s: opened session %s%s", self._queue, opened.session_id, server)
        for handle in opened.lost:
            job_id = self._standing.held.pop(handle, None)
            if job_id is not None:
                log.warning("job %s: its lease was lost while the worker was away", job_id)
        self._crew.drop(opened.lost)
        self._acker.look_again()

    def _delivered(self, deliveries: Iterable[pb.Delivery]) -> None:
        held, crew = self._standing.held, self._crew
        for delivery in deliveries:
            handle = delivery.handle
            if handle in held:
                continue
            job_id = held[handle] = delivery.job_id
            if self._quiet or crew.full:
                self._acker.settle(handle, Released())
            else:
                crew.start(delivery, handle, job_id)

    def _drained(self, draining: pb.Draining) -> float:
        self._standing.draining(from_duration(draining.resume_within))
        delay = from_duration(draining.reconnect_delay) * random.uniform(0.5, 1.5)
        log.info("queue %s: the server is going away; resuming in %.1f s", self._queue, delay)
        return delay

    def _refused(self, error: JobwireError, resuming: bool) -> float:
        if error.reason in _OVER or (resuming and isinstance(error, InvalidArgument)):
            self._lost(str(error))
        elif not self._ever_opened and isinstance(error, _USELESS_TO_REPEAT):
            raise error
        else:
            # Said once, not at each attempt.
            level = logging.DEBUG if str(error) == self._trouble else logging.WARNING
            self._trouble = str(error)
            log.log(level, "queue %s: no stream, trying again: %s", self._queue, error)
        return self._backoff.pause(error.retry_after)

    def _told_by_ack(self, handle: str, reason: StopReason) -> None:
        self._crew.stop(handle, reason)

    def _lost_by_ack(self, session: str) -> None:
        if session == self._standing.id:
            self._lost("the server no longer knows it")
            if self._call is not None:
                self._call.cancel()

    def _lost(self, why: str) -> None:
        if self._standing.id:
            log.warning("queue %s: session %s is over, its jobs are stopped: %s", self._queue, self._standing.id, why)
        self._standing.lost()
        self._crew.drop_all()

    def _credits_wanted(self) -> int:
        return 0 if self._quiet else max(0, self._crew.places)

    async def _watch(self) -> None:
        """Leave a stream that brings nothing, and stop handlers when nothing at all is heard of the server."""
        loop = asyncio.get_running_loop()
        while True:
            dues = []
            if self._call is not None:
                if self._standing.event_due > loop.time():
                    dues.append(self._standing.event_due)
                else:
                    log.warning("queue %s: the stream is silent; resuming over another connection", self._queue)
                    self._standing.fell_silent()
                    self._call.cancel()
                    await self._connection.leave(self._line)
            if self._standing.id:
                if self._standing.sign_due > loop.time():
                    dues.append(self._standing.sign_due)
                else:
                    self._crew.stop_all(StopReason.SILENCE)
            self._standing.changed.clear()
            due = min(dues, default=None)
            await set_within(self._standing.changed, None if due is None else due - loop.time())
            if due is not None and loop.time() > due + LATE:
                # What the server said meanwhile lies unread.
                await asyncio.sleep(LATE)
