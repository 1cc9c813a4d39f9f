"""Publishing in groups, a line for each queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import NamedTuple

from jobwire_server.domain.errors import DatabaseUnavailable, FieldViolation, InvalidArgument, JobwireError, QueueFull
from jobwire_server.domain.jobs import NewJob, Published
from jobwire_server.domain.limits import JOBS_PER_PUBLISH, REQUEST_BYTES
from jobwire_server.domain.queues import Policy, Queue
from jobwire_server.store import publishing as store
from jobwire_server.store.database import Database
from jobwire_server.store.publishing import Condition, PublishOutcome, QueueChanged

from .depths import Depths
from .dispatcher import Dispatcher
from .group_commit import GroupCommit
from .terms import Stats

_TURN_SECONDS = 5.0

Answer = list[Published] | JobwireError | None


class Call(NamedTuple):
    """Jobs to be stored; with a condition, only if that holds, which is part of the transaction."""

    queue: Queue
    jobs: Sequence[NewJob]
    condition: Condition | None = None


class Publisher:
    """Stores jobs, over `connections` of the pool at once, so that the other calls always find one.

    `on_stored(queue, jobs)` is called after each commit that stored something that waits now; `look_again(queue)` when
    a queue has changed.
    """

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        connections: int,
        stats: Stats,
        on_stored: Callable[[Queue, Sequence[NewJob]], None],
        look_again: Callable[[str], Awaitable[Queue]],
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._connections = asyncio.Semaphore(connections)
        self._stats = stats
        self._on_stored = on_stored
        self._look_again = look_again
        self._depths = Depths(database)
        self._lines: dict[tuple[str, bool], GroupCommit[Call, Answer]] = {}

    async def publish(self, queue: Queue, jobs: Sequence[NewJob]) -> list[Published]:
        """Stores `jobs`, all or none; a result for each, in order, once they are on disk. QueueFull without room."""
        results = await self._submit(Call(queue, jobs))
        assert results is not None
        return results

    async def publish_if(self, queue: Queue, jobs: Sequence[NewJob], condition: Condition) -> list[Published] | None:
        """As `publish`, in one transaction with `condition`; None, and nothing stored, if that says no."""
        return await self._submit(Call(queue, jobs, condition))

    async def _submit(self, call: Call) -> list[Published] | None:
        while True:
            _check_keys(call.queue, call.jobs)
            # Those with keys never go with those without: whoever holds a key must not keep these waiting.
            keyed = store.minds_keys(call.queue, call.jobs)
            name = call.queue.name, keyed
            line = self._lines.get(name)
            if line is None:
                line = self._lines[name] = GroupCommit(partial(self._store, keyed), _fits)
            try:
                answer = await line.submit(call)
            except QueueChanged:
                call = call._replace(queue=await self._look_again(call.queue.name))
                continue
            finally:
                if line.idle:
                    self._lines.pop(name, None)
            if isinstance(answer, JobwireError):
                raise answer
            return answer

    async def _store(self, keyed: bool, calls: Sequence[Call]) -> list[Answer]:
        queue = calls[-1].queue
        if not keyed:
            await self._dispatcher.calm(queue.name)
        async with self._connection():
            refusals = await self._refusals(queue, calls) if queue.max_depth else [None] * len(calls)
            jobs = [job for call, refusal in zip(calls, refusals, strict=True) if refusal is None for job in call.jobs]
            outcome = await self._publish(keyed, queue, jobs, calls[-1].condition) if jobs else PublishOutcome([])
        if outcome is None:
            return [None]
        created, waiting = outcome.created, outcome.created - len(outcome.claimed)
        self._stats["published"] += created
        if waiting:
            self._depths.stored(queue, waiting)
            self._on_stored(queue, jobs)
        results = iter(outcome.results)
        return [refusal or [next(results) for _ in call.jobs] for call, refusal in zip(calls, refusals, strict=True)]

    async def _publish(
        self, keyed: bool, queue: Queue, jobs: Sequence[NewJob], condition: Condition | None
    ) -> PublishOutcome | None:
        if condition is not None:
            # Not handed over: whether they will be there is not known before.
            return await store.publish_if(self._database, queue, jobs, condition)
        if keyed:
            return await store.publish_keyed(self._database, queue, jobs)
        return await self._dispatcher.publish(queue, jobs)

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
        everything = [job for call in calls for job in call.jobs]
        room = await self._depths.room(queue, len(everything))
        if len(everything) <= room:
            return [None] * len(calls)
        given = [job.id for job in everything if job.client_id]
        known = await store.known_ids(self._database, queue.name, given) if given else set()
        refusals: list[JobwireError | None] = []
        for call in calls:
            new = len({job.id for job in call.jobs} - known)
            if new <= room:
                room -= new
                refusals.append(None)
                continue
            self._stats["refused.queue_full"] += 1
            refusals.append(_too_many(queue, new) if new > queue.max_depth else QueueFull(queue.name, queue.max_depth))
        return refusals


def _check_keys(queue: Queue, jobs: Sequence[NewJob]) -> None:
    if queue.policy is Policy.KEY_STRICT_FIFO:
        for place, job in enumerate(jobs):
            if job.labels.key is None:
                rule = f"must be set: queue {queue.name!r} keeps the jobs of each key in their order"
                raise InvalidArgument(FieldViolation(f"jobs[{place}].key", rule))


def _too_many(queue: Queue, jobs: int) -> JobwireError:
    rule = f"are {jobs:,}, but no more than {queue.max_depth:,} may wait in queue {queue.name!r}; split the call"
    return InvalidArgument(FieldViolation("jobs", rule))


def _fits(group: Sequence[Call], call: Call) -> bool:
    # A condition is about its own jobs alone.
    if call.condition is not None or group[-1].condition is not None:
        return False
    together = (*group, call)
    return (
        sum(len(each.jobs) for each in together) <= JOBS_PER_PUBLISH
        and sum(len(job.data) for each in together for job in each.jobs) <= REQUEST_BYTES
    )
