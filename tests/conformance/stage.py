"""What a scenario plays on: a queue of its own, servers, proxies, the driver, and the truth about jobs.

Always holds: what a scenario started is gone when it ends, and what it says of a failure shows what its drivers said.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

from jobwire import Client, JobInfo, JobOptions, JobState, NewJob, NotFound, SessionInfo
from tests.chaos.proxy import Proxy
from tests.conformance.driver import PATIENCE, Driver
from tests.conformance.servers import Servers
from tests.system.conftest import ServerProcess

Entered = TypeVar("Entered")

_LOOK_AGAIN = 0.1


class Stage:
    """One scenario's surroundings.

    Args:
        servers: those that all scenarios share.
        command: how a driver is run.
        folder: for logs.
        patience: how long to wait for what must come, in seconds.
    """

    def __init__(self, servers: Servers, command: Sequence[str], folder: Path, *, patience: float = PATIENCE) -> None:
        self.servers = servers
        self.server = servers.first
        """A replica that stays."""
        self.second = servers.second
        """Another one on the same database."""
        self.truth: Client = servers.truth
        """The suite's own client."""
        self.queue = f"q-{secrets.token_hex(5)}"
        self.patience = patience
        self._command = command
        self._folder = folder
        self._numbers = itertools.count(1)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._stack.__aexit__(*raised)

    # Who plays along.

    async def unconnected(self) -> Driver:
        """A driver that is told nothing yet."""
        log = self._folder / f"driver-{next(self._numbers)}.log"
        return await self._stack.enter_async_context(Driver(self._command, log, patience=self.patience))

    async def driver(self, target: str | None = None, **connect: Any) -> Driver:
        """A driver that is connected to `target`; None: to the replica that stays."""
        driver = await self.unconnected()
        await driver.connect(target or self.server.address, **connect)
        return driver

    async def own_server(self, **settings: object) -> ServerProcess:
        """A replica that the scenario may stop and start."""
        return await self.servers.start(self._stack, **settings)

    async def proxy(self, server: ServerProcess | None = None, **how: Any) -> Proxy:
        """A network between a driver and a server that goes wrong as asked; None: before the replica that stays."""
        return await self._stack.enter_async_context(Proxy("127.0.0.1", (server or self.server).port, **how))

    def at_the_end(self, stop: Callable[[], Awaitable[object]]) -> None:
        """Call this when the scenario is over."""
        self._stack.push_async_callback(stop)

    # Jobs.

    async def publish(self, *data: object, priority: int = 0, **options: Any) -> list[str]:
        """Jobs by the suite's own client; returns their ids."""
        jobs = [NewJob(one, priority=priority, options=JobOptions(**options)) for one in data]
        return [published.job_id for published in await self.truth.publish_many(self.queue, jobs)]

    async def job(self, job_id: str) -> JobInfo:
        """A job, as it is."""
        return await self.truth.get_job(job_id, self.queue)

    async def finished(self, job_id: str) -> JobInfo:
        """A job, once it is finished."""
        return await self.truth.wait(job_id, self.queue, timeout=self.patience)

    async def completed(self, job_id: str, output: object = None) -> JobInfo:
        """A job that must come to be completed with this output, without a failure.

        It may have been on its way into a stream that ended, which is no fault: that counts as an attempt and nothing
        else.
        """
        job = await self.finished(job_id)
        assert (job.state, job.output, job.retry_count, job.loss_count) == (JobState.COMPLETED, output, 0, 0), job
        return job

    async def becomes(self, job_id: str, condition: Callable[[JobInfo], object]) -> JobInfo:
        """A job, once a condition holds for it."""

        async def holds() -> JobInfo | None:
            job = await self.job(job_id)
            return job if condition(job) else None

        return await self.until(holds, lambda: self.job(job_id))

    async def until(
        self, look: Callable[[], Awaitable[Entered | None]], shown: Callable[[], Awaitable[object]] | None = None
    ) -> Entered:
        """What `look` finds, once it finds something; `shown` is told if it does not."""
        deadline = asyncio.get_running_loop().time() + self.patience
        while not (found := await look()):
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(
                    f"not within {self.patience:g} s: {await shown() if shown else 'what was awaited'}"
                )
            await asyncio.sleep(_LOOK_AGAIN)
        return found

    async def sessions(self, queue: str | None = None) -> list[SessionInfo]:
        """Those that take jobs from a queue; None: from the stage's."""
        return [session async for session in self.truth.admin.list_sessions(queue or self.queue)]

    async def stored(self) -> int:
        """How many jobs the queue has, finished ones too; 0 if there is no such queue."""
        try:
            return len([job async for job in self.truth.admin.list_jobs(self.queue)])
        except NotFound:
            return 0
