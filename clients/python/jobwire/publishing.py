"""Publishing from an event loop: single jobs that go out together, and batches split into calls.

While a Publish call of a queue is on its way, what else is published to that queue gathers and goes out in the next
call; when nothing is on its way, nothing waits. `grouping` says who goes with whom, and what becomes of whom.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from jobwire.connection import Connection
from jobwire.convert import published_from
from jobwire.errors import DeadlineExceeded, JobwireError
from jobwire.grouping import Grouping, Waiting, calls, fail
from jobwire.model import NewJob, Published
from jobwire.retrying import ATTEMPT_TIMEOUT, Backoff
from jobwire.v1.queue_service_pb2 import JobSpec, PublishRequest


def no_answer(target: str, timeout: float) -> DeadlineExceeded:
    """The error of a publish that nobody answered in its time, in seconds."""
    return DeadlineExceeded(
        f"no answer from Jobwire at {target} within {timeout:g} s; the job may be stored, "
        "and publishing it again with the same id is safe"
    )


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
        self, queue: str, jobs: Iterable[NewJob], on_progress: Callable[[int, int], None] | None
    ) -> list[Published]:
        """Store many jobs, call by call in their order; the timeout is for each call."""
        requests = calls(queue, jobs)
        total = sum(len(request.jobs) for request in requests)
        published: list[Published] = []
        for request in requests:
            response = await self._connection.call(self._connection.queue.Publish, request, self._timeout)
            published += map(published_from, response.results)
            if on_progress is not None:
                on_progress(len(published), total)
        return published

    async def close(self) -> None:
        """Let what is on its way arrive, or run out of its time."""
        await asyncio.gather(*(lane.idle() for lane in list(self._lanes.values())))


class _Lane:
    """The jobs of one queue that are on their way: one call at a time. It leaves `lanes` when it runs empty."""

    def __init__(self, connection: Connection, queue: str, timeout: float, lanes: dict[str, _Lane]) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._queue = queue
        self._timeout = timeout
        self._lanes = lanes
        self._grouping = Grouping()
        # In the order of their deadlines, since all have the same time: one timer stands for all of them.
        self._unanswered: deque[Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._sender: asyncio.Task[None] | None = None

    def publish(self, spec: JobSpec) -> asyncio.Future[Published]:
        loop = self._loop
        answer: asyncio.Future[Published] = loop.create_future()
        waiting = Waiting(spec, loop.time() + self._timeout, answer)
        self._grouping.add(waiting)
        self._unanswered.append(waiting)
        if self._sender is None:
            self._sender = loop.create_task(self._send(), name=f"jobwire publish {self._queue}")
        if self._timer is None:
            self._timer = loop.call_at(waiting.deadline, self._time_is_up)
        return answer

    async def idle(self) -> None:
        if self._sender is not None:
            await asyncio.wait([self._sender])

    def _time_is_up(self) -> None:
        """Answer those whose time is over; what they published may still be stored."""
        now = self._loop.time()
        while self._unanswered and (self._unanswered[0].deadline <= now or self._unanswered[0].answer.done()):
            error = self._grouping.last_error or no_answer(self._connection.target, self._timeout)
            fail([self._unanswered.popleft()], error)
        self._timer = self._loop.call_at(self._unanswered[0].deadline, self._time_is_up) if self._unanswered else None

    async def _send(self) -> None:
        backoff = Backoff()
        try:
            while group := self._grouping.take():
                error = await self._deliver(group)
                if error is None:
                    backoff.reset()
                    # Those who were just answered may have more to publish: it goes along with what waits already.
                    await asyncio.sleep(0)
                else:
                    await asyncio.sleep(backoff.pause(error.retry_after))
        except BaseException as error:
            # Cancelled together with the loop, or a fault of ours: nobody may wait for ever.
            fail(self._unanswered, error)
            raise
        finally:
            self._sender = None
            if self._timer is not None:
                self._timer.cancel()
            del self._lanes[self._queue]

    async def _deliver(self, group: Sequence[Waiting]) -> JobwireError | None:
        """Publish a group. Returns the error if there is to be a pause before the next call."""
        remaining = group[-1].deadline - self._loop.time()
        request = PublishRequest(queue=self._queue, jobs=[waiting.spec for waiting in group])
        try:
            response = await self._connection.attempt(
                self._connection.queue.Publish, request, max(0.001, min(ATTEMPT_TIMEOUT, remaining))
            )
        except JobwireError as error:
            return error if self._grouping.refused(group, error) else None
        self._grouping.stored(group, response)
        while self._unanswered and self._unanswered[0].answer.done():
            self._unanswered.popleft()
        return None
