"""Publishing in groups, a line for each queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from jobwire_server.domain.jobs import NewJob, Published
from jobwire_server.domain.limits import JOBS_PER_PUBLISH, REQUEST_BYTES
from jobwire_server.domain.queues import Queue
from jobwire_server.store import publishing as store
from jobwire_server.store.database import Database

from .group_commit import GroupCommit
from .terms import Stats

Call = tuple[Queue, Sequence[NewJob]]


class Publisher:
    """Stores jobs, over `connections` of the pool at once, so that the other calls always find one.

    `on_stored(queue, jobs)` is called after each commit that stored something.
    """

    def __init__(
        self,
        database: Database,
        connections: int,
        stats: Stats,
        on_stored: Callable[[str, Sequence[NewJob]], None],
    ) -> None:
        self._database = database
        self._connections = asyncio.Semaphore(connections)
        self._stats = stats
        self._on_stored = on_stored
        self._lines: dict[str, GroupCommit[Call, list[Published]]] = {}

    async def publish(self, queue: Queue, jobs: Sequence[NewJob]) -> list[Published]:
        """Stores `jobs`, all or none; a result for each, in order, once they are on disk."""
        line = self._lines.get(queue.name)
        if line is None:
            line = self._lines[queue.name] = GroupCommit(self._store, _fits)
        try:
            return await line.submit((queue, jobs))
        finally:
            if line.idle:
                self._lines.pop(queue.name, None)

    async def _store(self, calls: Sequence[Call]) -> list[list[Published]]:
        queue = calls[-1][0]
        jobs = [job for _, mine in calls for job in mine]
        async with self._connections:
            outcome = await store.publish(self._database, queue, jobs)
        if outcome.any_created:
            self._stats["published"] += sum(result.created for result in outcome.results)
            self._on_stored(queue.name, jobs)
        results = iter(outcome.results)
        return [[next(results) for _ in mine] for _, mine in calls]


def _fits(group: Sequence[Call], call: Call) -> bool:
    jobs = sum(len(mine) for _, mine in group) + len(call[1])
    return (
        jobs <= JOBS_PER_PUBLISH and sum(len(job.data) for _, mine in (*group, call) for job in mine) <= REQUEST_BYTES
    )
