"""The worker: handlers by queue, one connection, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import grpc

from jobwire.batching import BatchRunner
from jobwire.credentials import Token, call_metadata
from jobwire.lifetime import Lifetime, Post
from jobwire.processes import PROCESS_NAME, ProcessRunner
from jobwire.running import LoopRunner, Runner, ThreadRunner
from jobwire.shares import QueueShare, share_of
from jobwire.v1.queue_service_pb2 import SubscribeRequest
from jobwire.wire import Seconds, in_seconds, to_duration

log = logging.getLogger(__name__)

RunIn = Literal["loop", "thread", "process"]
Function = TypeVar("Function", bound=Callable[..., Any])

_RUNNERS: dict[RunIn, Callable[..., Runner]] = {
    "loop": LoopRunner,
    "thread": ThreadRunner,
    "process": ProcessRunner,
}


@dataclass(frozen=True)
class _Registration:
    shares: tuple[QueueShare, ...]
    function: Callable[..., Any]
    concurrency: int
    run_in: RunIn
    batch: tuple[int, float] | None = None
    """For a handler of batches: how many jobs it takes at most, and how long it waits for them."""

    def runner(self) -> Runner:
        runner = _RUNNERS[self.run_in](self.function, batch=self.batch is not None)
        return runner if self.batch is None else BatchRunner(runner, *self.batch)


class Worker:
    """Runs handlers on the jobs of their queues.

    ```python
    worker = Worker("127.0.0.1:50051")

    @worker.handler("mail", concurrency=10)
    async def send(job: Job) -> None: ...

    if __name__ == "__main__":
        worker.run_forever()
    ```

    Each handler has a session of its own, so its concurrency is exact. When the connection breaks or the server
    restarts, handlers go on, and the sessions are resumed. A handler that raises fails its job; nothing it does ends
    the worker.

    Args:
        target: host and port of Jobwire.
        name: for people and logs, at most 200 characters. None: host name and process id.
        stop_grace: how long handlers may finish when the worker stops. What still runs then is cancelled and given
            back, which takes up to 4 s more; keep the sum below what your platform grants after SIGTERM.
        tls: credentials, for example `grpc.ssl_channel_credentials()`. None: no encryption.
        token: what the server knows this worker by, or a function that returns it, asked before each call. Without TLS
            whoever sees the network can read it.
        heartbeat_interval: how often the server asks for a sign of life, 1 s to 5 minutes.
        resume_grace: how long jobs stay with the worker when its connection breaks, 0 s to 15 s.
    """

    def __init__(
        self,
        target: str,
        *,
        name: str | None = None,
        stop_grace: Seconds = 25.0,
        tls: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        heartbeat_interval: Seconds = 5.0,
        resume_grace: Seconds = 15.0,
    ) -> None:
        self.name: str = name if name is not None else f"{socket.gethostname()}:{os.getpid()}"
        """The worker's name, as shown with its jobs."""
        self._target = target
        self._tls = tls
        self._token = token
        call_metadata(token)  # a token that can be none is refused here
        self._stop_grace = in_seconds(stop_grace)
        self._terms = SubscribeRequest(
            worker=self.name,
            heartbeat_interval=to_duration(heartbeat_interval),
            resume_grace=to_duration(resume_grace),
        )
        self._registrations: list[_Registration] = []
        self._lifetime: Lifetime | None = None

    def handler(
        self, queue: str | QueueShare, *more: str | QueueShare, concurrency: int = 1, run_in: RunIn = "loop"
    ) -> Callable[[Function], Function]:
        """Register a function as the handler of queues; to be used as a decorator, before the worker runs.

        The function takes a Job and returns what `json.dumps` takes, or None: that is the job's output. It must be
        idempotent, since a job may run again after a lost connection. It may raise FailForGood, RetryIn or ReleaseJob;
        any other exception fails the run, which is tried again as the job's options say.

        Args:
            queue: the queue; one handler each. A QueueShare says which of its jobs are wanted, and how many at once.
            more: further queues whose jobs it runs (`job.queue` says which), in the same places. They have them in
                equal parts, or by the weights of their QueueShares.
            concurrency: how many jobs may run at once, 1 to 1000, of all its queues together.
            run_in: `"loop"` for an async function, which is cancelled to stop it. It must not block: while it does, no
                heartbeat is answered, and after three of them the worker counts as lost. `"thread"` for a blocking one,
                which looks at `job.cancelled` or calls `job.check()`. `"process"` for one that computes for long: a
                function at the top level of a module, run in processes that are kept for further jobs, and killed if
                they do not stop.

        Raises:
            ValueError, TypeError: the registration makes no sense; the message says why.
        """
        return self._register((queue, *more), concurrency, run_in)

    def batch_handler(
        self,
        queue: str | QueueShare,
        *more: str | QueueShare,
        size: int,
        wait: Seconds = 0.1,
        concurrency: int | None = None,
        run_in: RunIn = "loop",
    ) -> Callable[[Function], Function]:
        """Register a function that takes a list of jobs, and settles each on its own; else as `handler`.

        The function gets a `list[BatchJob]` and calls `complete`, `fail` or `release` of each job as soon as it knows
        what became of it. Jobs that it has not settled when it returns are completed; when it raises, they fail with
        what it raised, just as a single job would. A job that is to stop (`job.cancelled`) and is not settled is never
        completed. The function itself is stopped when all that it has not settled is to stop.

        Args:
            queue: the queue, or its share; one handler each.
            more: further queues for the same function, as for `handler`.
            size: how many jobs a call takes at most, 1 to 1000.
            wait: how long the first job of a call waits for further ones, 0 s to 60 s; of its time limit too.
            concurrency: how many jobs may run at once, in whatever number of calls. None: as many as one call takes.
            run_in: as for `handler`.

        Raises:
            ValueError, TypeError: the registration makes no sense; the message says why.
        """
        if not 1 <= size <= 1000:
            raise ValueError(f"size {size} of queue {share_of(queue).queue!r} must be between 1 and 1000")
        if not 0 <= (seconds := in_seconds(wait)) <= 60:
            raise ValueError(f"wait {seconds:g} s of queue {share_of(queue).queue!r} must be between 0 s and 60 s")
        return self._register((queue, *more), size if concurrency is None else concurrency, run_in, (size, seconds))

    def _register(
        self,
        queues: Sequence[str | QueueShare],
        concurrency: int,
        run_in: RunIn,
        batch: tuple[int, float] | None = None,
    ) -> Callable[[Function], Function]:
        shares = tuple(map(share_of, queues))
        names = ", ".join(share.queue for share in shares)
        known = {share.queue for registration in self._registrations for share in registration.shares}
        for share in shares:
            if share.queue in known:
                raise ValueError(
                    f"queue {share.queue!r} has a handler already; to run more jobs at once, raise its concurrency"
                )
            known.add(share.queue)
        if not 1 <= concurrency <= 1000:
            raise ValueError(f"concurrency {concurrency} of queue {names!r} must be between 1 and 1000")
        if run_in not in _RUNNERS:
            raise ValueError(f"run_in must be one of {', '.join(_RUNNERS)}, not {run_in!r}")

        def register(function: Function) -> Function:
            is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
                getattr(function, "__call__", None)  # noqa: B004 - an object may be an async handler too
            )
            if is_async and run_in != "loop":
                raise TypeError(f"{function!r} is async: it runs in the loop, not in a {run_in}")
            if not is_async and run_in == "loop":
                raise TypeError(f'{function!r} is not async: give run_in="thread" or run_in="process"')
            self._registrations.append(_Registration(shares, function, concurrency, run_in, batch))
            return function

        return register

    def run_forever(self) -> None:
        """Run in an event loop of its own until SIGTERM or SIGINT; for the end of a script."""
        asyncio.run(self.run())

    async def run(self) -> None:
        """Work until SIGTERM, SIGINT or `stop`, then end in order. A second signal cuts the grace short.

        It returns as well when an operator has asked the worker to leave, and what it ran is finished.

        The signals are taken only in the main thread. Cancelling the task that runs this stops in order too.

        Raises:
            JobwireError: the server refuses the name of a queue, the worker's terms or its credentials.
        """
        with self._signals():
            async with self:
                await self.stop_asked()

    async def __aenter__(self) -> Self:
        """Start to work in the background."""
        if multiprocessing.current_process().name == PROCESS_NAME:
            raise RuntimeError(
                "a worker was started inside a process that runs a handler: start it under "
                '`if __name__ == "__main__":`, so that importing its module does not start another one'
            )
        if not self._registrations:
            raise ValueError("this worker has no handlers: register one with @worker.handler(queue)")
        if self._lifetime is not None:
            raise RuntimeError("this worker runs already")
        posts = [
            Post(registration.shares, registration.concurrency, registration.runner())
            for registration in self._registrations
        ]
        self._lifetime = Lifetime(self._target, self._tls, self._token, self._terms, posts, self._stop_grace)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop in order."""
        lifetime = self._lifetime
        if lifetime is None:
            return
        lifetime.stop(now=False)
        try:
            await lifetime.task
        finally:
            self._lifetime = None

    async def stop_asked(self) -> None:
        """Wait until the worker is told to stop, or cannot go on."""
        if self._lifetime is not None:
            await self._lifetime.stop_asked()

    def stop(self, *, now: bool = False) -> None:
        """Tell the worker to stop, from any thread. Calling it twice, or when nothing runs, is fine.

        Args:
            now: without the grace: running handlers are cancelled at once, and their jobs given back.
        """
        if self._lifetime is not None:
            self._lifetime.stop(now=now)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _signalled(self, number: signal.Signals) -> None:
        again = self._lifetime is not None and self._lifetime.stopping
        log.info("%s: %s", number.name, "giving back what runs" if again else "finishing what runs")
        self.stop(now=again)
