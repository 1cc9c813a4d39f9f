"""How handlers run: in the event loop, or in threads. `processes` adds the third way.

A runner turns a delivery into an outcome and raises nothing. In a thread or a process, a handler is asked to stop; in
the loop, its task is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from jobwire.job import Job, Link, job_from
from jobwire.outcome import Outcome, completed, raised
from jobwire.v1.queue_service_pb2 import Delivery

AsyncHandler = Callable[[Job], Awaitable[Any]]
BlockingHandler = Callable[[Job], Any]


class Runner(Protocol):
    """Runs the handler of one queue, several runs at once."""

    cancels_tasks: bool
    """Whether a run is stopped by cancelling its task; if not, the handler sees `job.cancelled` and ends by itself."""

    async def run(self, delivery: Delivery, link: Link) -> Outcome:
        """Run the handler on one delivery."""

    async def close(self) -> None:
        """Let go of what is kept for further runs."""


class LoopRunner:
    """Runs an async handler as a task of the event loop."""

    cancels_tasks = True

    def __init__(self, handler: AsyncHandler) -> None:
        self._handler = handler

    async def run(self, delivery: Delivery, link: Link) -> Outcome:
        """Await the handler."""
        try:
            return completed(await self._handler(job_from(delivery, link)))
        except BaseException as error:  # noqa: BLE001 - SystemExit too would end the event loop
            return raised(error, told_to_stop=link.cancelled)

    async def close(self) -> None:
        """Nothing is kept."""


class ThreadRunner:
    """Runs a blocking handler in a thread of its own.

    The threads are daemons: one that never ends does not keep the process from ending.
    """

    cancels_tasks = False

    def __init__(self, handler: BlockingHandler) -> None:
        self._handler = handler

    async def run(self, delivery: Delivery, link: Link) -> Outcome:
        """Wait for the handler's thread."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Outcome] = loop.create_future()

        def work() -> None:
            outcome = run_blocking(self._handler, delivery, link)
            # RuntimeError: the loop is closed. The worker is gone, and the lease with it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(end, outcome)

        def end(outcome: Outcome) -> None:
            if not ended.done():
                ended.set_result(outcome)

        name = f"jobwire {delivery.queue} {delivery.job_id}"
        threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True).start()
        return await ended

    async def close(self) -> None:
        """Nothing is kept."""


def run_blocking(handler: BlockingHandler, delivery: Delivery, link: Link) -> Outcome:
    """Run a blocking handler in the present thread."""
    try:
        return completed(handler(job_from(delivery, link)))
    except BaseException as error:  # noqa: BLE001 - SystemExit and JobCancelled too are answers of the handler
        return raised(error, told_to_stop=link.cancelled)
