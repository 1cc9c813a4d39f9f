"""Publishing: single jobs that go out together, and batches split into calls.

While a Publish call of a queue is on its way, what else is published to that queue gathers and goes out in the next
call; when nothing is on its way, nothing waits. Fate is not shared: a group that is refused is taken apart until the
bad job stands alone. Ids are made before the first attempt, so every call may be repeated.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jobwire.connection import Connection
from jobwire.convert import published_from
from jobwire.errors import DeadlineExceeded, InvalidArgument, JobwireError, QueueFull, ResourceExhausted
from jobwire.model import Published
from jobwire.retrying import ATTEMPT_TIMEOUT, Backoff, worth_repeating
from jobwire.v1.queue_service_pb2 import JobSpec, PublishRequest
from jobwire.wire import MAX_CALL_BYTES, MAX_CALL_ITEMS

log = logging.getLogger(__name__)


class Publisher:
    """Publishes over one connection; each queue has a lane of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lanes: dict[str, _Lane] = {}

    async def publish(self, queue: str, spec: JobSpec, timeout: float) -> Published:
        """Store one job, in one call with its neighbours."""
        lane = self._lanes.get(queue)
        if lane is None:
            lane = self._lanes[queue] = _Lane(self._connection, queue, self._lanes)
        return await lane.publish(spec, timeout)

    async def publish_many(
        self, queue: str, specs: Sequence[JobSpec], timeout: float, on_progress: Callable[[int, int], None] | None
    ) -> list[Published]:
        """Store many jobs, call by call in their order; `timeout` is for each call."""
        published: list[Published] = []
        for part in _parts(specs):
            request = PublishRequest(queue=queue, jobs=part)
            response = await self._connection.call(self._connection.queue.Publish, request, timeout)
            published += map(published_from, response.results)
            if on_progress is not None:
                on_progress(len(published), len(specs))
        return published

    async def close(self) -> None:
        """Let what is on its way arrive, or run out of its time."""
        await asyncio.gather(*(lane.idle() for lane in list(self._lanes.values())))


def _parts(specs: Sequence[JobSpec]) -> Iterator[list[JobSpec]]:
    """Split jobs into what one call may carry."""
    part: list[JobSpec] = []
    size = 0
    for spec in specs:
        needed = _size_in_call(spec)
        if part and (len(part) == MAX_CALL_ITEMS or size + needed > MAX_CALL_BYTES):
            yield part
            part, size = [], 0
        part.append(spec)
        size += needed
    if part:
        yield part


def _size_in_call(spec: JobSpec) -> int:
    """A job's share of a request; its tag and length take up to five bytes."""
    return spec.ByteSize() + 5


@dataclass(eq=False, slots=True)
class _Waiting:
    """A published job that has no answer yet. Its answer is done early if the publisher no longer waits."""

    spec: JobSpec
    size: int
    deadline: float
    answer: asyncio.Future[Published]


class _Lane:
    """The jobs of one queue that are on their way: one call at a time. It leaves `lanes` when it runs empty."""

    def __init__(self, connection: Connection, queue: str, lanes: dict[str, _Lane]) -> None:
        self._connection = connection
        self._queue = queue
        self._lanes = lanes
        self._waiting: deque[_Waiting] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._last_error: JobwireError | None = None
        # After a refused group: how many of its members are not cleared yet, and how many go out at once until then.
        self._suspects = 0
        self._most = MAX_CALL_ITEMS

    async def publish(self, spec: JobSpec, timeout: float) -> Published:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(spec, _size_in_call(spec), loop.time() + timeout, loop.create_future())
        self._waiting.append(waiting)
        if self._sender is None:
            self._sender = asyncio.create_task(self._send(), name=f"jobwire publish {self._queue}")
        try:
            async with asyncio.timeout_at(waiting.deadline):
                return await waiting.answer
        except TimeoutError:
            # What kept failing says more than that time is up.
            if self._last_error is not None:
                raise copy.copy(self._last_error) from None
            raise DeadlineExceeded(
                f"no answer from Jobwire at {self._connection.target} within {timeout:g} s; the job may be stored, "
                "and publishing it again with the same id is safe"
            ) from None

    async def idle(self) -> None:
        if self._sender is not None:
            await asyncio.wait([self._sender])

    async def _send(self) -> None:
        backoff = Backoff()
        try:
            while group := self._take():
                error = await self._deliver(group)
                if error is None:
                    backoff.reset()
                else:
                    self._last_error = error
                    await asyncio.sleep(backoff.pause(error.retry_after))
        finally:
            self._sender = None
            del self._lanes[self._queue]

    def _take(self) -> list[_Waiting]:
        """Take what goes into the next call, without those that nobody waits for any more."""
        group: list[_Waiting] = []
        size = 0
        while self._waiting and len(group) < self._most:
            waiting = self._waiting[0]
            if not waiting.answer.done():
                if group and size + waiting.size > MAX_CALL_BYTES:
                    break
                group.append(waiting)
                size += waiting.size
            self._waiting.popleft()
        return group

    async def _deliver(self, group: list[_Waiting]) -> JobwireError | None:
        """Publish a group and answer its members. Returns the error if the whole group is to be tried again."""
        remaining = max(waiting.deadline for waiting in group) - asyncio.get_running_loop().time()
        request = PublishRequest(queue=self._queue, jobs=[waiting.spec for waiting in group])
        try:
            response = await self._connection.attempt(
                self._connection.queue.Publish, request, max(0.001, min(ATTEMPT_TIMEOUT, remaining))
            )
        except JobwireError as error:
            if worth_repeating(error):
                self._waiting.extendleft(reversed(group))
                if isinstance(error, QueueFull):
                    # There may be room for fewer.
                    self._most = max(1, len(group) // 2)
                return error
            if isinstance(error, InvalidArgument | ResourceExhausted) and len(group) > 1:
                # One of them is bad. Smaller groups follow until it stands alone, and order is kept.
                self._waiting.extendleft(reversed(group))
                self._suspects, self._most = len(group), len(group) // 2
                return None
            self._fail(group, error)
            self._suspects = 0
        except BaseException as error:
            # Cancelled together with the loop, or a fault of ours: nobody may wait for ever.
            self._fail([*group, *self._waiting], error)
            raise
        else:
            for waiting, result in zip(group, response.results, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(published_from(result))
        self._last_error = None
        self._suspects = max(0, self._suspects - len(group))
        if not self._suspects:
            self._most = MAX_CALL_ITEMS
        return None

    def _fail(self, group: list[_Waiting], error: BaseException) -> None:
        for waiting in group:
            if not waiting.answer.done():
                if isinstance(error, asyncio.CancelledError):
                    waiting.answer.cancel()
                else:
                    waiting.answer.set_exception(copy.copy(error))
