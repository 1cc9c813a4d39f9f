"""A handler whose runs the test lets go one by one."""

from __future__ import annotations

import asyncio

from jobwire import Job
from tests.client.scripted_server import PATIENCE


class Held:
    """An async handler whose runs last until the test lets them go."""

    def __init__(self) -> None:
        self.runs: dict[str, int] = {}
        self.cancelled: list[str] = []
        self.any_cancelled = asyncio.Event()
        self._started: dict[str, asyncio.Event] = {}
        self._release: dict[str, asyncio.Event] = {}

    async def __call__(self, job: Job) -> str:
        self.runs[job.id] = self.runs.get(job.id, 0) + 1
        self._event(self._started, job.id).set()
        try:
            await self._event(self._release, job.id).wait()
        except asyncio.CancelledError:
            self.cancelled.append(job.id)
            self.any_cancelled.set()
            raise
        return "done"

    async def started(self, handle: str) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._event(self._started, f"job-of-{handle}").wait()

    def release(self, handle: str) -> None:
        self._event(self._release, f"job-of-{handle}").set()

    def _event(self, events: dict[str, asyncio.Event], job: str) -> asyncio.Event:
        return events.setdefault(job, asyncio.Event())
