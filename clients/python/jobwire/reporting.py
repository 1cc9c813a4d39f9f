"""The link between a running handler and the Acks: progress at a bearable pace, extensions at once.

However often a handler reports, from whatever thread, the event loop is woken at most once per interval, and only the
latest word is sent.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable

from jobwire.acking import Acker
from jobwire.job import Done
from jobwire.model import Progress

INTERVAL = 0.2
"""The shortest time between two reports of one job, in seconds."""


class Reporter:
    """The Link of a handler that runs in this process. Made in the event loop, used from any thread."""

    # What most runs never change, so it costs them nothing.
    cancelled = False
    _latest: Progress | None = None
    _checkpoint: str | None = None
    _left: asyncio.Future[None] | None = None
    _scheduled = False
    _next_at = 0.0
    _timer: asyncio.TimerHandle | None = None
    _closed = False

    def __init__(self, acker: Acker, handle: str) -> None:
        self._acker = acker
        self._handle = handle

    def report(self, progress: Progress, checkpoint: str | None = None) -> None:
        """Take the latest word. Costs next to nothing while an earlier one waits to be sent."""
        self._latest = progress
        if checkpoint is not None:
            self._checkpoint = checkpoint
        if not self._scheduled:
            self._scheduled = True
            self._in_loop(self._due)

    def extend(self, seconds: float) -> Awaitable[None]:
        """Ask for a new time limit at once."""
        if threading.get_ident() == self._acker.thread:
            return self._extend(seconds)
        self._in_loop(self._extend, seconds)
        return Done()

    @property
    def leaves(self) -> bool:
        """Whether a checkpoint has not been answered yet, so that it may be lost with what is said next."""
        return self._checkpoint is not None or (self._left is not None and not self._left.done())

    async def left(self) -> None:
        """Let the checkpoint arrive, before the end of the run is reported."""
        if self._checkpoint is not None:
            self._send()
        if self._left is not None:
            await asyncio.wait([self._left])

    def close(self) -> None:
        """The run is over: what is said from now on is of no interest."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _extend(self, seconds: float) -> Awaitable[None]:
        return Done() if self._closed else self._acker.extend(self._handle, expire_in=seconds)

    def _in_loop(self, function: object, *arguments: object) -> None:
        try:
            self._acker.loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]
        except RuntimeError:
            # The loop is closed: this is a thread that outlived its worker.
            self._closed = True

    def _due(self) -> None:
        if not self._closed:
            self._timer = self._acker.loop.call_at(max(self._next_at, self._acker.loop.time()), self._send)

    def _send(self) -> None:
        # In this order: a word that comes after it is read finds nothing scheduled, and schedules anew.
        self._scheduled = False
        progress, self._latest = self._latest, None
        checkpoint, self._checkpoint = self._checkpoint, None
        if progress is not None and not self._closed:
            self._next_at = self._acker.loop.time() + INTERVAL
            answered = self._acker.extend(self._handle, progress=progress, checkpoint=checkpoint)
            if checkpoint is not None:
                self._left = answered
