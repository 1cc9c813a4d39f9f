"""How full the queues are that have a largest depth.

Counting is dear in a deep queue, so a count holds for a second, with what was stored here since added to it. One that
leaves no room is made anew sooner, after ten times as long as it took: jobs that left make room early, and counting
takes a tenth of a connection's time at most.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from jobwire_server.domain.queues import Queue
from jobwire_server.store import queues as store
from jobwire_server.store.database import Database

_FRESH_SECONDS = 1.0
_SOONEST_SECONDS = 0.02


@dataclass(slots=True)
class _Count:
    most: int
    waiting: int
    at: float
    took: float


class Depths:
    """Asked and told by each queue's line, one call at a time for each queue."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[str, _Count] = {}

    async def room(self, queue: Queue, wanted: int) -> int:
        """For how many more jobs there is room; as exact as it can be if that is less than `wanted`."""
        count = self._counts.get(queue.name)
        if count is None or count.most != queue.max_depth or self._outdated(count, wanted):
            began = time.monotonic()
            waiting = await store.depth(self._database, queue.name, queue.max_depth)
            ended = time.monotonic()
            count = self._counts[queue.name] = _Count(queue.max_depth, waiting, ended, ended - began)
        return max(0, count.most - count.waiting)

    def stored(self, queue: Queue, jobs: int) -> None:
        """So many were stored now."""
        if (count := self._counts.get(queue.name)) is not None:
            count.waiting += jobs

    def _outdated(self, count: _Count, wanted: int) -> bool:
        holds = _FRESH_SECONDS
        if count.most - count.waiting < wanted:
            holds = min(holds, max(_SOONEST_SECONDS, 10 * count.took))
        return time.monotonic() - count.at > holds
