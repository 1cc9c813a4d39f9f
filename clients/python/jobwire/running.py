"""How handlers run: in the event loop, or in threads. `processes` adds the third way.

A runner turns a delivery into an outcome and raises nothing. In a thread or a process, a handler is asked to stop; in
the loop, its task is cancelled.

A runner may also be given a batch: several deliveries, whose link is a Batch. Then the handler gets a list, and the
outcome is that of all jobs which it has not settled by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jobwire.job import BatchJob, Link, MemberLink, batch_job_from, job_from
from jobwire.outcome import Outcome, completed, raised
from jobwire.v1.queue_service_pb2 import Delivery

AsyncHandler = Callable[[Any], Awaitable[Any]]
BlockingHandler = Callable[[Any], Any]


@dataclass(eq=False)
class Batch:
    """The links of the jobs that a handler gets together."""

    members: Sequence[MemberLink]
    on_stop: Callable[[int], None] = lambda _place: None
    """Called in the event loop when one of them is to stop."""

    @property
    def cancelled(self) -> bool:
        """Whether all that is not settled is to stop, so that the handler has nothing left to do."""
        return all(member.cancelled for member in self.members if not member.settled)


Given = Delivery | Sequence[Delivery]
"""What a handler is called for: one delivery, or those of a batch."""


def jobs_from(deliveries: Sequence[Delivery], batch: Batch) -> list[BatchJob]:
    """What a handler of batches gets."""
    return [batch_job_from(delivery, member) for delivery, member in zip(deliveries, batch.members, strict=True)]


Argument = Callable[[Any, Any], Any]
"""`job_from` or `jobs_from`: makes what the handler gets. Chosen once, since looking at each job costs more."""


def argument_for(*, batch: bool) -> Argument:
    """Which of them it is."""
    return jobs_from if batch else job_from


class Runner(Protocol):
    """Runs the handler of one queue, several runs at once."""

    cancels_tasks: bool
    """Whether a run is stopped by cancelling its task; if not, the handler sees `job.cancelled` and ends by itself."""

    async def run(self, given: Given, link: Link | Batch) -> Outcome:
        """Run the handler on one delivery, or on a batch."""

    async def close(self) -> None:
        """Let go of what is kept for further runs."""


class LoopRunner:
    """Runs an async handler as a task of the event loop."""

    cancels_tasks = True

    def __init__(self, handler: AsyncHandler, *, batch: bool = False) -> None:
        self._handler = handler
        self._argument = argument_for(batch=batch)

    async def run(self, given: Given, link: Link | Batch) -> Outcome:
        """Await the handler."""
        try:
            return completed(await self._handler(self._argument(given, link)))
        except BaseException as error:  # noqa: BLE001 - SystemExit too would end the event loop
            return raised(error, told_to_stop=link.cancelled)

    async def close(self) -> None:
        """Nothing is kept."""


class ThreadRunner:
    """Runs a blocking handler in a thread of its own.

    The threads are daemons: one that never ends does not keep the process from ending.
    """

    cancels_tasks = False

    def __init__(self, handler: BlockingHandler, *, batch: bool = False) -> None:
        self._handler = handler
        self._argument = argument_for(batch=batch)

    async def run(self, given: Given, link: Link | Batch) -> Outcome:
        """Wait for the handler's thread."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Outcome] = loop.create_future()

        def work() -> None:
            outcome = run_blocking(self._handler, self._argument, given, link)
            # RuntimeError: the loop is closed. The worker is gone, and the lease with it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(end, outcome)

        def end(outcome: Outcome) -> None:
            if not ended.done():
                ended.set_result(outcome)

        name = f"jobwire {name_of(given)}"
        threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True).start()
        return await ended

    async def close(self) -> None:
        """Nothing is kept."""


def name_of(given: Given) -> str:
    """What is run, for people."""
    if isinstance(given, Delivery):
        return f"{given.queue} {given.job_id}"
    return f"{given[0].queue} {given[0].job_id} and {len(given) - 1} more"


def run_blocking(handler: BlockingHandler, argument: Argument, given: Given, link: Link | Batch) -> Outcome:
    """Run a blocking handler in the present thread."""
    try:
        return completed(handler(argument(given, link)))
    except BaseException as error:  # noqa: BLE001 - SystemExit and JobCancelled too are answers of the handler
        return raised(error, told_to_stop=link.cancelled)
