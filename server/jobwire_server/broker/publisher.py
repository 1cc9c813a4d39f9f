"""Publishing in groups, a line for each queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from jobwire_server.domain.errors import DatabaseUnavailable, FieldViolation, InvalidArgument, JobwireError, QueueFull
from jobwire_server.domain.jobs import NewJob, Published
from jobwire_server.domain.limits import JOBS_PER_PUBLISH, REQUEST_BYTES
from jobwire_server.domain.queues import Queue
from jobwire_server.store import publishing as store
from jobwire_server.store.database import Database
from jobwire_server.store.publishing import PublishOutcome

from .depths import Depths
from .dispatcher import Dispatcher
from .group_commit import GroupCommit
from .terms import Stats

_TURN_SECONDS = 5.0

Call = tuple[Queue, Sequence[NewJob]]
Answer = list[Published] | JobwireError


class Publisher:
    """Stores jobs, over `connections` of the pool at once, so that the other calls always find one.

    `on_stored(queue, jobs)` is called after each commit that stored something that waits now.
    """

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        connections: int,
        stats: Stats,
        on_stored: Callable[[Queue, Sequence[NewJob]], None],
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._connections = asyncio.Semaphore(connections)
        self._stats = stats
        self._on_stored = on_stored
        self._depths = Depths(database)
        self._lines: dict[tuple[str, bool], GroupCommit[Call, Answer]] = {}

    async def publish(self, queue: Queue, jobs: Sequence[NewJob]) -> list[Published]:
        """Stores `jobs`, all or none; a result for each, in order, once they are on disk. QueueFull without room."""
        # Those with keys never go with those without: whoever holds a key must not keep these waiting.
        keyed = queue.guarded or not all(job.plain for job in jobs)
        line = self._lines.get((queue.name, keyed))
        if line is None:
            line = self._lines[queue.name, keyed] = GroupCommit(partial(self._store, keyed), _fits)
        try:
            answer = await line.submit((queue, jobs))
        finally:
            if line.idle:
                self._lines.pop((queue.name, keyed), None)
        if isinstance(answer, JobwireError):
            raise answer
        return answer

    async def _store(self, keyed: bool, calls: Sequence[Call]) -> list[Answer]:
        queue = calls[-1][0]
        if not keyed:
            await self._dispatcher.calm(queue.name)
        async with self._connection():
            refusals = await self._refusals(queue, calls) if queue.max_depth else [None] * len(calls)
            jobs = [job for (_, mine), refusal in zip(calls, refusals, strict=True) if refusal is None for job in mine]
            store_jobs = partial(store.publish_keyed, self._database) if keyed else self._dispatcher.publish
            outcome = await store_jobs(queue, jobs) if jobs else PublishOutcome([])
        created, waiting = outcome.created, outcome.created - len(outcome.claimed)
        self._stats["published"] += created
        if waiting:
            self._depths.stored(queue, waiting)
            self._on_stored(queue, jobs)
        results = iter(outcome.results)
        return [refusal or [next(results) for _ in mine] for (_, mine), refusal in zip(calls, refusals, strict=True)]

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[None]:
        """A turn to use a connection of the pool, waited for no longer than for a connection itself."""
        try:
            # No bound is made up for what is there at once.
            async with asyncio.timeout(_TURN_SECONDS) if self._connections.locked() else nullcontext():
                await self._connections.acquire()
        except TimeoutError:
            raise DatabaseUnavailable from None
        try:
            yield
        finally:
            self._connections.release()

    async def _refusals(self, queue: Queue, calls: Sequence[Call]) -> list[JobwireError | None]:
        """For each call of a queue with a largest depth, with what it is refused, if there is no room for it.

        What is stored already takes no room: a call whose answer was lost may be repeated into a full queue.
        """
        everything = [job for _, jobs in calls for job in jobs]
        room = await self._depths.room(queue, len(everything))
        if len(everything) <= room:
            return [None] * len(calls)
        given = [job.id for job in everything if job.client_id]
        known = await store.known_ids(self._database, queue.name, given) if given else set()
        refusals: list[JobwireError | None] = []
        for _, jobs in calls:
            new = len({job.id for job in jobs} - known)
            if new <= room:
                room -= new
                refusals.append(None)
                continue
            self._stats["refused.queue_full"] += 1
            refusals.append(_too_many(queue, new) if new > queue.max_depth else QueueFull(queue.name, queue.max_depth))
        return refusals


def _too_many(queue: Queue, jobs: int) -> JobwireError:
    rule = f"are {jobs:,}, but no more than {queue.max_depth:,} may wait in queue {queue.name!r}; split the call"
    return InvalidArgument(FieldViolation("jobs", rule))


def _fits(group: Sequence[Call], call: Call) -> bool:
    jobs = sum(len(mine) for _, mine in group) + len(call[1])
    return (
        jobs <= JOBS_PER_PUBLISH and sum(len(job.data) for _, mine in (*group, call) for job in mine) <= REQUEST_BYTES
    )
