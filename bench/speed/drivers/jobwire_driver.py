"""Jobwire through its public Python client, everything at its defaults.

A worker's `concurrency` is no setting of the queue but what the application says about its handler, so the settings
asked for decide it: one job at a time at the defaults, as many as the client allows where throughput is wanted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bench.speed.drivers.protocol import Worked, best_settings, pace, run
from jobwire import Client, Job, NewJob, Worker

_QUEUE = "bench"
_CONCURRENCY = 1_000


class JobwireDriver:
    """Publishes by one client, and works by one worker."""

    def __init__(self, target: str, client: Client) -> None:
        self._target = target
        self._client = client
        self._concurrency = _CONCURRENCY if best_settings() else 1

    async def setup(self) -> None:
        """Makes the queue."""
        await self._client.admin.create_queue(_QUEUE)

    async def store(self, payloads: Sequence[Mapping[str, Any]]) -> None:
        """One `publish`, or one `publish_many`."""
        if len(payloads) == 1:
            await self._client.publish(_QUEUE, payloads[0])
        else:
            await self._client.publish_many(_QUEUE, [NewJob(payload) for payload in payloads])

    async def work(self, jobs: int, working: Callable[[], None]) -> Worked:
        """The end is when the worker has stopped, which is when all its Acks are answered and its session is closed."""
        worker = Worker(self._target)
        handled, began = 0, 0

        @worker.handler(_QUEUE, concurrency=self._concurrency)
        async def nothing(_: Job) -> None:
            nonlocal handled, began
            began = began or time.time_ns()
            handled += 1
            if handled == jobs:
                worker.stop()

        async with worker:
            working()
            await worker.stop_asked()
        return Worked(began, time.time_ns())

    async def latencies(self, jobs: int, every: float) -> list[int]:
        """Publisher and worker share this process and its clock, and meet only in the server."""
        worker = Worker(self._target)
        found: list[int] = []
        complete = asyncio.Event()

        @worker.handler(_QUEUE, concurrency=self._concurrency)
        async def arrived(job: Job) -> None:
            found.append(time.time_ns() - job.data["began"])
            if len(found) == jobs:
                complete.set()

        async def publish() -> None:
            await self._client.publish(_QUEUE, {"began": time.time_ns(), "text": "x" * 150})

        async with worker:
            await pace(jobs, every, publish)
            await complete.wait()
        return found


@asynccontextmanager
async def connected(target: str) -> AsyncIterator[JobwireDriver]:
    """Speaks to the server at `target`, host and port."""
    async with Client(target) as client:
        yield JobwireDriver(target, client)


if __name__ == "__main__":
    run(connected)
