"""How much Publish may hold at once: what is beyond it is refused at once, so that memory and all other calls keep.

A call counts from the moment its message is there to its answer: while it is checked, while it waits in its queue's
line, while its statement runs. Messages are received a few at a time, and none for which there would be no room. Acks,
looks and streams are never refused here: each is bounded by what it belongs to.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from jobwire_server.domain.errors import Overloaded

from .terms import Stats

_JOB_BYTES = 1_024
"""What a job takes besides its payload, roughly."""
_RECEIVED_AT_ONCE = 4
_SLOW_SECONDS = 0.5
_SOONEST, _LATEST = 0.1, 2.5


class Admission:
    """Lets calls in as long as what they hold together stays within `most_bytes`; a call alone always is."""

    def __init__(self, most_bytes: int, stats: Stats) -> None:
        self._most = most_bytes
        self._stats = stats
        self._turns = asyncio.Semaphore(_RECEIVED_AT_ONCE)
        self._begun: dict[object, float] = {}
        self._took = 0.0
        self._full = False
        self.held = 0
        """The bytes of the calls that are in."""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A call's turn to receive its message. Raises Overloaded while calls are being refused.

        Who sends slowly loses the turn to the next one, and goes on receiving.
        """
        self._refuse_if(self._full)
        await self._turns.acquire()
        left: list[None] = [None]

        def leave() -> None:
            if left:
                left.pop()
                self._turns.release()

        timer = asyncio.get_running_loop().call_later(_SLOW_SECONDS, leave)
        try:
            self._refuse_if(self._full)
            yield
        finally:
            timer.cancel()
            leave()

    @contextmanager
    def admit(self, size: int, jobs: int) -> Iterator[None]:
        """Lets one call in until the block ends. Raises Overloaded."""
        weight = size + jobs * _JOB_BYTES
        self._full = bool(self._begun) and self.held + weight > self._most
        self._refuse_if(self._full)
        call = object()
        began = self._begun[call] = time.monotonic()
        self.held += weight
        try:
            yield
        finally:
            self.held -= weight
            del self._begun[call]
            self._took = time.monotonic() - began
            self._full = False

    def _refuse_if(self, full: bool) -> None:
        if full:
            self._stats["refused.overloaded"] += 1
            raise Overloaded(self._retry_after())

    def _retry_after(self) -> float:
        """As long as a call takes through the backlog at present: what the last one took, or the oldest one waits.

        And up to twice as long, so that those who are refused together do not come again together.
        """
        oldest = time.monotonic() - next(iter(self._begun.values()))
        return min(_LATEST, max(_SOONEST, self._took, oldest)) * random.uniform(1, 2)
