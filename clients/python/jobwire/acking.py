"""Says what became of deliveries, in as few calls as the network makes of them.

One call with statements is on its way at a time; what gathers meanwhile goes into the next. A settling statement stays
here until it is answered, whatever breaks in between: the stream, the server, the session itself. Heartbeats are
answered by calls of their own, which no slow statement can hold up. A statement on a job that somebody else has locked
in the database is found among its neighbours, and repeated apart from them until the lock is gone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

from jobwire.connection import Connection
from jobwire.convert import progress_message
from jobwire.credentials import Metadata
from jobwire.errors import Aborted, InternalError, InvalidArgument, JobwireError, ResourceExhausted
from jobwire.model import Progress
from jobwire.outcome import JUST_COMPLETED, Failed, Released, Settling, StopReason, ack_item, bad_result
from jobwire.retrying import ATTEMPT_TIMEOUT, Backoff
from jobwire.standing import Standing
from jobwire.v1 import queue_service_pb2 as pb
from jobwire.waiting import set_within
from jobwire.wire import MAX_CALL_BYTES, MAX_CALL_ITEMS, to_duration

log = logging.getLogger(__name__)

_LOCKED_PAUSE = 3.0
"""A locked statement is said again after up to so many seconds more than the server asks for."""

_ITEM_FRAME = 8
"""The most bytes of a statement in a call besides its handle and what it says: tags and lengths."""

_ANSWERS_THAT_COUNT = (pb.ACK_STATUS_APPLIED, pb.ACK_STATUS_ALREADY_APPLIED)

_ANSWERS_THAT_STOP = {
    pb.ACK_STATUS_LEASE_LOST: StopReason.LEASE_LOST,
    pb.ACK_STATUS_NOT_FOUND: StopReason.LEASE_LOST,
    pb.ACK_STATUS_CANCELLED: StopReason.REQUESTED,
}

_STATUS_NAMES = {number: name.removeprefix("ACK_STATUS_") for name, number in pb.AckStatus.items()}

_CANCEL_REASONS = {
    pb.CANCEL_REASON_REQUESTED: StopReason.REQUESTED,
    pb.CANCEL_REASON_EXPIRED: StopReason.EXPIRED,
    pb.CANCEL_REASON_LEASE_LOST: StopReason.LEASE_LOST,
}


def stop_reason(reason: pb.CancelReason.ValueType) -> StopReason:
    """What the server means by telling a worker to stop."""
    return _CANCEL_REASONS.get(reason, StopReason.REQUESTED)


@dataclass(slots=True)
class _Extension:
    """What is to be said of a delivery that still runs, and who waits for the answer."""

    item: pb.AckItem
    """Without its handle, like those of `ack_item`."""
    waiters: list[asyncio.Future[None]] = field(default_factory=list)

    def answered(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


class Acker:
    """The statements of one worker's deliveries of one queue.

    Args:
        connection: that of the stream.
        standing: the session that the statements belong to.
        credits_wanted: how many deliveries there may be at once; asked before each call.
        on_stop: called when the server's answer tells the handler of a delivery to stop.
        on_lost: called with the session's id when the server no longer knows it.
    """

    def __init__(
        self,
        connection: Connection,
        standing: Standing,
        *,
        credits_wanted: Callable[[], int],
        on_stop: Callable[[str, StopReason], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        """The thread in which the loop runs; only there may the methods be called."""
        self._connection = connection
        self._standing = standing
        self._credits_wanted = credits_wanted
        self._on_stop = on_stop
        self._on_lost = on_lost
        self._settlings: dict[str, Settling] = {}
        self._extensions: dict[str, _Extension] = {}
        # Handles whose jobs are locked, and from when on to try again.
        self._locked: dict[str, float] = {}
        self._turn_of_locked = False
        self._work = asyncio.Event()
        self._retry_now = asyncio.Event()
        self._all_answered = asyncio.Event()
        self._all_answered.set()
        self._beats: set[asyncio.Task[None]] = set()
        self._receipt: tuple[tuple[str, int, int], asyncio.Task[None]] | None = None

    def settle(self, handle: str, outcome: Settling) -> None:
        """Report how a delivery ended; said once, it is repeated until it is answered."""
        self._settlings[handle] = outcome
        self.forget(handle)
        self._all_answered.clear()
        self._work.set()

    def extend(
        self,
        handle: str,
        *,
        progress: Progress | None = None,
        checkpoint: str | None = None,
        expire_in: float | None = None,
    ) -> asyncio.Future[None]:
        """Report that a delivery still runs. The future is done when that is answered, or of no interest any more."""
        waiter = self.loop.create_future()
        if handle in self._settlings:
            waiter.set_result(None)
            return waiter
        item = pb.AckItem(extend=pb.Extend())
        before = self._extensions.get(handle)
        if before is not None:
            item.extend.CopyFrom(before.item.extend)
        if progress is not None:
            if checkpoint is None and item.extend.progress.HasField("checkpoint"):
                checkpoint = item.extend.progress.checkpoint
            item.extend.progress.CopyFrom(progress_message(progress, checkpoint))
        if expire_in is not None:
            item.extend.expire_in.CopyFrom(to_duration(expire_in))
        self._extensions[handle] = _Extension(item, [*(before.waiters if before else ()), waiter])
        self._work.set()
        return waiter

    def forget(self, handle: str) -> None:
        """Say no more of a delivery than how it ended."""
        extension = self._extensions.pop(handle, None)
        if extension is not None:
            self._locked.pop(handle, None)
            extension.answered()

    def look_again(self) -> None:
        """The wanted credits may have changed, or the server may be back."""
        self._work.set()
        self._retry_now.set()

    def beat(self) -> asyncio.Task[None]:
        """Answer a heartbeat."""
        beat = asyncio.create_task(self._beat(), name="jobwire heartbeat")
        self._beats.add(beat)
        beat.add_done_callback(self._beats.discard)
        return beat

    async def receipt(self) -> None:
        """Let the server know of all that has arrived so far. Returns when it does, or when it could not be told."""
        standing = self._standing
        event = standing.id, standing.epoch, standing.last_sequence  # each stream counts its own
        if self._receipt is None or self._receipt[0] != event or self._receipt[1].done():
            self._receipt = event, self.beat()  # one call for all that came in one event
        await asyncio.wait([self._receipt[1]])

    async def all_answered(self) -> None:
        """Wait until every settling statement is answered."""
        await self._all_answered.wait()

    async def close_session(self, within: float) -> None:
        """Leave: the session ends at once, and what it still holds is given back."""
        if not self._standing.id:
            return
        request = pb.AckRequest(
            session_id=self._standing.id, last_sequence=self._standing.last_sequence, close_session=True
        )
        try:
            await self._connection.call(self._ack, request, within)
        except JobwireError as error:
            log.warning("could not close session %s, it ends by itself: %s", self._standing.id, error)

    def _ack(self, request: pb.AckRequest, *, timeout: float, metadata: Metadata | None) -> Awaitable[pb.AckResponse]:
        """Make the call, over the connection as it is now: between two attempts it may be left for another one."""
        return self._connection.queue.Ack(request, timeout=timeout, metadata=metadata)

    async def run(self) -> None:
        """Send until cancelled."""
        backoff = Backoff()
        while True:
            await self._work.wait()
            self._work.clear()
            while (items := self._gathered()) or self._credits_due():
                error = await self._send(items)
                if error is None:
                    backoff.reset()
                    continue
                self._retry_now.clear()
                pause = backoff.pause(error.retry_after)
                log.debug("Ack not answered, again in %.1f s: %s", pause, error)
                await set_within(self._retry_now, pause)

    def _gathered(self) -> dict[str, pb.AckItem]:
        """What goes into the next call, by handle. It is not taken away here: only an answer does that.

        Locked statements go alone, and in turn with what the others have to say.
        """
        now = self.loop.time()
        due = next((handle for handle, when in self._locked.items() if when <= now), None)
        group = self._group()
        if due is not None and (self._turn_of_locked or not group):
            self._turn_of_locked = False
            return {due: self._item(due)}
        self._turn_of_locked = True
        return group

    def _item(self, handle: str) -> pb.AckItem:
        outcome = self._settlings.get(handle)
        return self._extensions[handle].item if outcome is None else ack_item(outcome)

    def _group(self) -> dict[str, pb.AckItem]:
        items: dict[str, pb.AckItem] = {}
        size = 0
        for handle in chain(self._settlings, self._extensions):
            if handle in self._locked:
                continue
            item = self._item(handle)
            size += len(handle) + _ITEM_FRAME
            if item is not JUST_COMPLETED:
                size += item.ByteSize()
            if items and (len(items) == MAX_CALL_ITEMS or size > MAX_CALL_BYTES):
                break
            items[handle] = item
        return items

    def _credits_due(self) -> bool:
        return self._standing.open and self._standing.told_credits != self._credits_wanted()

    async def _send(self, items: Mapping[str, pb.AckItem]) -> JobwireError | None:
        """Send statements and take their answers. Returns the error if some of them have to be sent again."""
        standing = self._standing
        session, epoch = standing.id, standing.epoch
        request = pb.AckRequest(session_id=session, items=items.values(), last_sequence=standing.last_sequence)
        # Only here, since alike statements are one object.
        for handle, item in zip(items, request.items, strict=True):
            item.handle = handle
        places = self._credits_wanted() if self._credits_due() else None
        if places is not None:
            request.max_in_flight = places
        # Not those that say something newer than the items of a group that is being taken apart.
        sent = {handle: each for handle, each in self._extensions.items() if items.get(handle) is each.item}
        try:
            response = await self._connection.attempt(self._connection.queue.Ack, request, ATTEMPT_TIMEOUT)
        except JobwireError as error:
            if places is not None:
                standing.told(session, epoch, places, answered=False)
            return await self._sort_out(items, error)
        if places is not None:
            standing.told(session, epoch, places, answered=True)
        settled: list[str] = []
        for (handle, item), result in zip(items.items(), response.results, strict=True):
            if item is not JUST_COMPLETED and item.HasField("extend"):
                self._extended(handle, sent.get(handle), result)
                continue
            if result.status not in _ANSWERS_THAT_COUNT:
                self._in_vain(handle, item, result)
            settled.append(handle)
        self._settled(settled)
        self._take_sign(session, response)
        return None

    async def _sort_out(self, items: Mapping[str, pb.AckItem], error: JobwireError) -> JobwireError | None:
        """Find what a call failed for. Returns the error if all of it has to be sent again."""
        if not isinstance(error, Aborted | InvalidArgument | ResourceExhausted | InternalError):
            return error
        if len(items) > 1:
            # One of them may be bad, or locked: none may suffer for it.
            all_of_them = list(items.items())
            middle = len(items) // 2
            return await self._send(dict(all_of_them[:middle])) or await self._send(dict(all_of_them[middle:]))
        for handle, item in items.items():
            if isinstance(error, Aborted):
                self._locked_for(handle, Backoff(_LOCKED_PAUSE).pause(error.retry_after))
                return None
            if isinstance(error, InvalidArgument):
                self._refused(handle, item, error)
                return None
            # Let the others pass.
            if handle in self._settlings:
                self._settlings[handle] = self._settlings.pop(handle)
        return error

    def _locked_for(self, handle: str, pause: float) -> None:
        """Leave a statement out of the next calls; it may have been withdrawn meanwhile."""
        self._locked.pop(handle, None)
        if handle in self._settlings or handle in self._extensions:
            self._locked[handle] = self.loop.time() + pause
            self.loop.call_later(pause, self._work.set)

    def _in_vain(self, handle: str, item: pb.AckItem, result: pb.AckResult) -> None:
        kind = item.WhichOneof("outcome")
        log.log(
            logging.DEBUG if kind == "release" else logging.WARNING,
            "job %s: its end (%s) does not count: %s",
            self._standing.held.get(handle, handle),
            kind,
            _STATUS_NAMES.get(result.status, f"status {result.status}, which this client does not know"),
        )

    def _extended(self, handle: str, extension: _Extension | None, result: pb.AckResult) -> None:
        if extension is not None:
            extension.answered()
            if self._extensions.get(handle) is extension:
                del self._extensions[handle]
                self._locked.pop(handle, None)
        if result.status in _ANSWERS_THAT_STOP:
            self._on_stop(handle, _ANSWERS_THAT_STOP[result.status])
        elif result.cancel:
            self._on_stop(handle, stop_reason(result.cancel))

    def _refused(self, handle: str, item: pb.AckItem, error: InvalidArgument) -> None:
        """Replace a statement that the server does not take by the next plainer one, so that the job gets an end."""
        job_id = self._standing.held.get(handle, handle)
        outcome = self._settlings.get(handle)
        if outcome is None or item.WhichOneof("outcome") == "extend":
            log.error("job %s: the server refused to extend it: %s", job_id, error)
            self.forget(handle)
            return
        log.error("job %s: the server refused its end (%s): %s", job_id, item.WhichOneof("outcome"), error)
        if isinstance(outcome, Released):
            self._settled([handle])
        elif isinstance(outcome, Failed):
            self._settlings[handle] = Released()
        else:
            self._settlings[handle] = bad_result(error.message)

    def _settled(self, handles: Iterable[str]) -> None:
        for handle in handles:
            self._settlings.pop(handle, None)
            self._locked.pop(handle, None)
            self._standing.held.pop(handle, None)
        if not self._settlings:
            self._all_answered.set()

    async def _beat(self) -> None:
        standing = self._standing
        session = standing.id
        request = pb.AckRequest(session_id=session, last_sequence=standing.last_sequence)
        try:
            response = await self._connection.attempt(self._connection.queue.Ack, request, ATTEMPT_TIMEOUT)
        except JobwireError as error:
            log.debug("heartbeat not answered: %s", error)
        else:
            self._take_sign(session, response)

    def _take_sign(self, session: str, response: pb.AckResponse) -> None:
        self._standing.sign()
        if session and not response.session_alive:
            self._on_lost(session)
