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
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """Publishes over one connection; each queue has a lane of its own. `timeout` is for each job, in seconds."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._lanes: dict[str, _Lane] = {}

    def publish(self, queue: str, spec: JobSpec) -> asyncio.Future[Published]:
        """Store one job, in one call with its neighbours; the future is done when it is stored or refused."""
        lane = self._lanes.get(queue)
        if lane is None:
            lane = self._lanes[queue] = _Lane(self._connection, queue, self._timeout, self._lanes)
        return lane.publish(spec)

    async def publish_many(
        self, queue: str, specs: Sequence[JobSpec], on_progress: Callable[[int, int], None] | None
    ) -> list[Published]:
        """Store many jobs, call by call in their order; the timeout is for each call."""
        published: list[Published] = []
        for part in _parts(specs):
            request = PublishRequest(queue=queue, jobs=part)
            response = await self._connection.call(self._connection.queue.Publish, request, self._timeout)
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

    def __init__(self, connection: Connection, queue: str, timeout: float, lanes: dict[str, _Lane]) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._queue = queue
        self._timeout = timeout
        self._lanes = lanes
        self._waiting: deque[_Waiting] = deque()
        # In the order of their deadlines, since all have the same time: one timer stands for all of them.
        self._unanswered: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._sender: asyncio.Task[None] | None = None
        self._last_error: JobwireError | None = None
        # After a refused group: how many of its members are not cleared yet, and how many go out at once until then.
        self._suspects = 0
        self._most = MAX_CALL_ITEMS

    def publish(self, spec: JobSpec) -> asyncio.Future[Published]:
        loop = self._loop
        waiting = _Waiting(spec, _size_in_call(spec), loop.time() + self._timeout, loop.create_future())
        self._waiting.append(waiting)
        self._unanswered.append(waiting)
        if self._sender is None:
            self._sender = loop.create_task(self._send(), name=f"jobwire publish {self._queue}")
        if self._timer is None:
            self._timer = loop.call_at(waiting.deadline, self._time_is_up)
        return waiting.answer

    def _time_is_up(self) -> None:
        """Answer those whose time is over; what they published may still be stored."""
        now = self._loop.time()
        while self._unanswered and (self._unanswered[0].deadline <= now or self._unanswered[0].answer.done()):
            self._fail([self._unanswered.popleft()], self._last_error or self._no_answer())
        self._timer = self._loop.call_at(self._unanswered[0].deadline, self._time_is_up) if self._unanswered else None

    def _no_answer(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"no answer from Jobwire at {self._connection.target} within {self._timeout:g} s; the job may be stored, "
            "and publishing it again with the same id is safe"
        )

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
        except BaseException as error:
            # Cancelled together with the loop, or a fault of ours: nobody may wait for ever.
            self._fail(self._unanswered, error)
            raise
        finally:
            self._sender = None
            if self._timer is not None:
                self._timer.cancel()
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
        remaining = group[-1].deadline - self._loop.time()
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
        else:
            for waiting, result in zip(group, response.results, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(published_from(result))
            while self._unanswered and self._unanswered[0].answer.done():
                self._unanswered.popleft()
        self._last_error = None
        self._suspects = max(0, self._suspects - len(group))
        if not self._suspects:
            self._most = MAX_CALL_ITEMS
        return None

    def _fail(self, group: Iterable[_Waiting], error: BaseException) -> None:
        for waiting in group:
            if not waiting.answer.done():
                if isinstance(error, asyncio.CancelledError):
                    waiting.answer.cancel()
                else:
                    waiting.answer.set_exception(copy.copy(error))
