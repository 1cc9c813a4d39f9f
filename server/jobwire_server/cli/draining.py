"""`jobwire queues drain`: have what runs finish, and start nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from jobwire import Client, QueueInfo

_LOOK_EVERY = 0.5
"""In seconds."""
_SETTLED = 1.0
"""For so long nothing must have been active, since a claim that was under way at the pause may still start what it
took."""


async def drain(client: Client, name: str, timeout: float | None, on_look: Callable[[QueueInfo], None]) -> QueueInfo:
    """Pauses a queue and looks at it until nothing of it is active, or for `timeout` seconds; returns the last look."""
    await client.admin.pause_queue(name)
    deadline = None if timeout is None else time.monotonic() + timeout
    idle_since: float | None = None
    while True:
        queue = await client.admin.get_queue(name)
        on_look(queue)
        now = time.monotonic()
        if active(queue):
            idle_since = None
        elif idle_since is None:
            idle_since = now
        elif now - idle_since >= _SETTLED:
            return queue
        if deadline is not None and now >= deadline and active(queue):
            return queue
        await asyncio.sleep(_LOOK_EVERY)


def active(queue: QueueInfo) -> int:
    """How many of its jobs are with a worker."""
    return queue.counts.active if queue.counts else 0


class Bar:
    """Shows how many of the jobs that were active are left."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("pausing", total=None)
        self._most = 0

    def __enter__(self) -> Callable[[QueueInfo], None]:
        self._progress.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _show(self, queue: QueueInfo) -> None:
        left = active(queue)
        self._most = max(self._most, left)
        self._progress.update(
            self._task, description=f"{left:,} still active", total=self._most or 1, completed=self._most - left
        )
