"""Publishing from threads: what they publish singly at the same time goes out together.

The same grouping as in an event loop, driven by the ends of calls: whoever finds a lane idle sends the first call, and
each answer, in a thread of gRPC's, sends the next one. No thread of our own waits.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import grpc

from jobwire.credentials import Metadata
from jobwire.errors import JobwireError, Unauthenticated, error_from_rpc
from jobwire.grouping import Grouping, Waiting, fail
from jobwire.model import Published
from jobwire.publishing import no_answer
from jobwire.retrying import ATTEMPT_TIMEOUT, Backoff
from jobwire.v1.queue_service_pb2 import JobSpec, PublishRequest, PublishResponse


class Lanes:
    """The lanes of one client by queue. `timeout` is for each job, in seconds; `metadata` makes that of each call."""

    def __init__(
        self,
        method: grpc.UnaryUnaryMultiCallable[PublishRequest, PublishResponse],
        target: str,
        timeout: float,
        metadata: Callable[[], Metadata | None],
    ) -> None:
        self._method = method
        self._metadata = metadata
        self._target = target
        self._timeout = timeout
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane] = {}

    def publish(self, queue: str, spec: JobSpec) -> Published:
        """Store one job, in one call with its neighbours; raises JobwireError."""
        waiting = Waiting(spec, time.monotonic() + self._timeout, answer := Future[Published]())
        with self._lock:
            lane = self._lanes.get(queue)
            if lane is None:
                lane = self._lanes[queue] = _Lane(self._method, self._target, queue, self._metadata)
        lane.add(waiting)
        with contextlib.suppress(TimeoutError):
            return answer.result(self._timeout)
        lane.give_up(waiting, no_answer(self._target, self._timeout))
        return answer.result()

    def close(self) -> None:
        """Let what is on its way arrive, or run out of its time."""
        with self._lock:
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.idle.wait(self._timeout)


class _Lane:
    """The jobs of one queue that are on their way: one call at a time."""

    def __init__(
        self,
        method: grpc.UnaryUnaryMultiCallable[PublishRequest, PublishResponse],
        target: str,
        queue: str,
        metadata: Callable[[], Metadata | None],
    ) -> None:
        self.idle = threading.Event()
        """Set while no call is on its way, and none is to be repeated."""
        self.idle.set()
        self._method = method
        self._target = target
        self._queue = queue
        self._metadata = metadata
        # Held for moments, never while a call is begun: its end may be told in the same thread.
        self._lock = threading.Lock()
        self._grouping = Grouping()
        self._backoff = Backoff()

    def add(self, waiting: Waiting) -> None:
        with self._lock:
            self._grouping.add(waiting)
            was_idle = self.idle.is_set()
            self.idle.clear()
        if was_idle:
            self._send()

    def give_up(self, waiting: Waiting, error: Exception) -> None:
        """Its time is up: what kept failing says more than that."""
        with self._lock:
            fail([waiting], self._grouping.last_error or error)

    def _send(self) -> None:
        with self._lock:
            group = self._grouping.take()
            if not group:
                self.idle.set()
                return
        remaining = group[-1].deadline - time.monotonic()
        request = PublishRequest(queue=self._queue, jobs=[waiting.spec for waiting in group])
        try:
            within = max(0.001, min(ATTEMPT_TIMEOUT, remaining))
            call = self._method.future(request, timeout=within, metadata=self._metadata())
        except Unauthenticated as error:
            self._ended(group, error)
        except ValueError:
            # What gRPC says of a channel that was closed meanwhile.
            self._ended(group, RuntimeError("this Client was closed before the job was answered: make a new one"))
        else:
            call.add_done_callback(functools.partial(self._answered, group))

    def _answered(self, group: Sequence[Waiting], call: grpc.Future[PublishResponse]) -> None:
        try:
            self._ended(group, call.result())
        except grpc.RpcError as failure:
            self._ended(group, error_from_rpc(failure, self._target))
        except Exception as fault:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._ended(group, fault)

    def _ended(self, group: Sequence[Waiting], end: PublishResponse | Exception) -> None:
        """Take the end of a group's call, and send what has gathered since."""
        pause = None
        with self._lock:
            if isinstance(end, PublishResponse):
                self._grouping.stored(group, end)
                self._backoff.reset()
            elif not isinstance(end, JobwireError):
                fail(group, end)
            elif self._grouping.refused(group, end):
                pause = self._backoff.pause(end.retry_after)
        if pause is None:
            self._send()
        else:
            again = threading.Timer(pause, self._send)
            again.daemon = True
            again.start()
