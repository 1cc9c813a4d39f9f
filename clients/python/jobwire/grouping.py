"""Which jobs of one queue go out together, and what each of them is answered. No I/O, no clock, no event loop.

While a call is on its way, what else is published gathers for the next one. Fate is not shared: a group that is refused
is taken apart until the bad job stands alone. Ids are made before the first attempt, so every group may be repeated.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from jobwire.convert import published_from, write_spec
from jobwire.errors import DeadlineExceeded, InvalidArgument, JobwireError, QueueFull, ResourceExhausted
from jobwire.model import NewJob, Published
from jobwire.retrying import worth_repeating
from jobwire.v1.queue_service_pb2 import JobSpec, PublishRequest, PublishResponse
from jobwire.wire import MAX_CALL_BYTES, MAX_CALL_ITEMS


def size_in_call(spec: JobSpec) -> int:
    """A job's share of a request in bytes; its tag and length take up to five."""
    return spec.ByteSize() + 5


def calls(queue: str, jobs: Iterable[NewJob]) -> list[PublishRequest]:
    """The calls that publish many jobs, each as full as it may be; raises as `spec_from`, for all of them at once.

    A job is written straight into its call: a message of its own, which the call then copies, would cost it more.
    """
    requests: list[PublishRequest] = []
    request = PublishRequest(queue=queue)
    specs, size = request.jobs, 0
    for job in jobs:
        write_spec(spec := specs.add(), job)
        size += size_in_call(spec)
        if len(specs) > 1 and (len(specs) > MAX_CALL_ITEMS or size > MAX_CALL_BYTES):
            # The one too many begins the next call.
            del specs[-1]
            requests.append(request)
            request = PublishRequest(queue=queue, jobs=[spec])
            specs, size = request.jobs, size_in_call(spec)
    if specs:
        requests.append(request)
    return requests


@dataclass(eq=False, slots=True)
class Waiting:
    """A published job that has no answer yet. Its answer is done early if the publisher no longer waits."""

    spec: JobSpec
    deadline: float
    """On the clock of whoever sends."""
    answer: asyncio.Future[Published] | Future[Published]


class Grouping:
    """The jobs of one queue that wait to be sent, and what to make of the answers."""

    def __init__(self) -> None:
        self.last_error: JobwireError | None = None
        """What the last call failed with, if that says more than that somebody's time is up."""
        self._waiting: deque[Waiting] = deque()
        # After a refused group: how many of its members are not cleared yet, and how many go out at once until then.
        self._suspects = 0
        self._most = MAX_CALL_ITEMS

    def add(self, waiting: Waiting) -> None:
        """Put a job behind the others."""
        self._waiting.append(waiting)

    def take(self) -> list[Waiting]:
        """Take what goes into the next call, without those that nobody waits for any more."""
        group: list[Waiting] = []
        size = 0
        while self._waiting and len(group) < self._most:
            waiting = self._waiting[0]
            if not waiting.answer.done():
                size += size_in_call(waiting.spec)
                if group and size > MAX_CALL_BYTES:
                    break
                group.append(waiting)
            self._waiting.popleft()
        return group

    def stored(self, group: Sequence[Waiting], response: PublishResponse) -> None:
        """The call of a group succeeded: answer its members."""
        for waiting, result in zip(group, response.results, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(published_from(result))
        self._cleared(group)

    def refused(self, group: Sequence[Waiting], error: JobwireError) -> bool:
        """The call of a group failed: answer its members, or put them back. Returns whether to pause first."""
        if worth_repeating(error):
            self._waiting.extendleft(reversed(group))
            if not isinstance(error, DeadlineExceeded):
                self.last_error = error
            if isinstance(error, QueueFull):
                # There may be room for fewer.
                self._most = max(1, len(group) // 2)
            return True
        if isinstance(error, InvalidArgument | ResourceExhausted) and len(group) > 1:
            # One of them is bad. Smaller groups follow until it stands alone, and order is kept.
            self._waiting.extendleft(reversed(group))
            self._suspects, self._most = len(group), len(group) // 2
            return False
        fail(group, error)
        self._suspects = 0
        self._cleared(group)
        return False

    def _cleared(self, group: Sequence[Waiting]) -> None:
        self.last_error = None
        self._suspects = max(0, self._suspects - len(group))
        if not self._suspects:
            self._most = MAX_CALL_ITEMS


def fail(those: Iterable[Waiting], error: BaseException) -> None:
    """Answer with an error all that still wait; each gets one of its own, since raising changes it."""
    for waiting in those:
        if not waiting.answer.done():
            if isinstance(error, asyncio.CancelledError):
                waiting.answer.cancel()
            else:
                waiting.answer.set_exception(copy.copy(error))
