"""What operators do with jobs: find them, and change those that are named or that match.

No call runs without bound: a search looks at a stretch of jobs at a time, a change by filter is worked off in
transactions of some hundred jobs, and after two seconds a call answers with what it has come to and where it goes on.
Each transaction writes its record with it. What has been done is never answered with an error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from jobwire_server.domain.errors import JobwireError, NoJobWaits, QueueFull, TooMuchToRead
from jobwire_server.domain.jobs import Job, NewJob
from jobwire_server.domain.operations import (
    Action,
    Change,
    Changed,
    ChangeStatus,
    JobFilter,
    JobPatch,
    Order,
    Place,
    Walk,
)
from jobwire_server.domain.queues import Queue
from jobwire_server.store import actions, changing, finding, queues, updating
from jobwire_server.store.actions import Entry
from jobwire_server.store.changing import Batch, Outcome
from jobwire_server.store.database import Database
from jobwire_server.store.finding import Stretch
from jobwire_server.store.publishing import Stored
from jobwire_server.store.settling import Stop
from jobwire_server.store.updating import Updated

from .queue_book import QueueBook

_CALL_SECONDS = 2.0
_WINDOW, _NARROW_WINDOW = 10_000, 200
"""How many jobs are looked at at once; fewer if their payloads are so large that it takes too long."""
_BATCH = 500
_SAMPLE = 10


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the rest of the broker is told: of new tickets, of changed jobs, and of workers that are to stop."""

    tickets: Callable[[str], None]
    changed: Callable[[str, Iterable[UUID]], None]
    stop: Callable[[Stop], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class JobsFound:
    """A page of jobs, where the next begins (None: nothing is left), and how many were looked at."""

    jobs: list[Job]
    next: Place | None
    looked_at: int


@dataclass(frozen=True, slots=True)
class Walked:
    """How far a change by filter has come: `walk.place` is where it goes on, None if it is over."""

    walk: Walk
    sample: list[Changed]
    looked_at: int


class Operations:
    """Finds and changes jobs."""

    call_seconds = _CALL_SECONDS
    window = _WINDOW
    batch = _BATCH

    def __init__(self, database: Database, queues: QueueBook, cancel_grace_ms: int, hooks: Hooks) -> None:
        self._database = database
        self._queues = queues
        self._cancel_grace_ms = cancel_grace_ms
        self._hooks = hooks
        # As with an operator's reads: changes take one connection of the pool, however many ask.
        self._turn = asyncio.Semaphore(1)

    async def list_jobs(self, queue: str | None, wanted: JobFilter, place: Place | None, size: int) -> JobsFound:
        """A page of jobs that match, by queue and descending id, as they stand."""
        found: list[tuple[str, UUID]] = []
        looked_at = 0
        after: Place | None = None

        def most() -> int:
            return size + 1 - len(found)

        async for at, stretch, then in self._stretches(queue, wanted, place, most):
            looked_at += stretch.looked_at
            found += [(at, job_id) for job_id, _ in stretch.found]
            after = then
            if len(found) > size:
                after = Place(*found[size - 1])
                break
        return JobsFound(await self._jobs(found[:size], wanted), after, looked_at)

    async def _jobs(self, found: Sequence[tuple[str, UUID]], wanted: JobFilter) -> list[Job]:
        """As they stand; those that have left the states asked for since they were found are left out."""
        by_queue: dict[str, list[UUID]] = {}
        for queue, job_id in found:
            by_queue.setdefault(queue, []).append(job_id)
        jobs: list[Job] = []
        for queue, ids in by_queue.items():
            async with self._database.reading() as connection:
                jobs += await finding.jobs_named(self._database, connection, queue, ids)
        return [job for job in jobs if job.state in wanted.possible]

    async def change(self, queue: str, ids: Sequence[UUID], order: Order) -> list[Changed]:
        """Changes jobs that are named; one result for each, in order."""
        await self._check(queue, order)
        outcome = await self._apply(queue, sorted(set(ids)), order, None)
        return outcome.results(queue, ids)

    async def would_change(self, queue: str, ids: Sequence[UUID], change: Change) -> list[Changed]:
        """What `change` would do now."""
        await self._queues.find(queue)
        states = await changing.states(self._database, queue, ids)
        return [
            Changed(
                queue,
                job_id,
                ChangeStatus.NOT_FOUND
                if (state := states.get(job_id)) is None
                else ChangeStatus.CHANGED
                if state in change.applies_to
                else ChangeStatus.WRONG_STATE,
                state,
            )
            for job_id in ids
        ]

    async def change_matching(
        self, queue: str | None, wanted: JobFilter, order: Order, walk: Walk, *, dry_run: bool
    ) -> Walked:
        """Changes jobs that match, or in a dry run counts them, for as long as one call may take."""
        if queue is not None:
            await self._check(queue, order)
        elif order.destination is not None:
            await self._queues.find(order.destination)
        progress = _Progress(walk)
        try:
            await self._walk(queue, wanted, order, progress, dry_run=dry_run)
        except JobwireError:
            # What came before it is done, and is answered; the next call meets the error again.
            if progress.walk.changed == walk.changed:
                raise
        return Walked(progress.walk, progress.sample, progress.looked_at)

    async def _walk(
        self, queue: str | None, wanted: JobFilter, order: Order, progress: _Progress, *, dry_run: bool
    ) -> None:
        possible = wanted.possible & order.change.applies_to
        if not possible:
            return
        wanted = replace(wanted, states=possible)
        place = progress.walk.place
        progress.walk = replace(progress.walk, place=None)

        def most() -> int:
            if dry_run:
                return self.window
            return self.batch if progress.walk.left is None else min(self.batch, progress.walk.left)

        async for at, stretch, after in self._stretches(queue, wanted, place, most, skip=order.destination):
            if dry_run:
                progress.counted([Changed(at, job_id, ChangeStatus.CHANGED, state) for job_id, state in stretch.found])
            elif stretch.found:
                ids = [job_id for job_id, _ in stretch.found]
                outcome = await self._apply(at, sorted(ids), order, progress.walk)
                progress.did(outcome.results(at, ids), outcome.action)
            progress.looked_at += stretch.looked_at
            over = progress.walk.left == 0
            progress.walk = replace(progress.walk, place=None if over else after)
            if over:
                return

    async def update(self, queue: Queue, patch: JobPatch, job: NewJob | None, by: str) -> Updated:
        """Changes waiting jobs. If none waits `job` is stored; without one, JobNotFound."""
        name = queue.name
        named = {"job_id": str(patch.job_id)} if patch.job_id is not None else {"key": patch.key}
        entry = Entry(by, "job.update", name, {**named, "which": patch.which.name.lower()})
        async with self._turn:
            if job is not None and queue.max_depth:
                await self._check_room(queue)
            updated = await updating.update(self._database, name, patch, entry, job and Stored(queue, job))
        if not updated.ids and updated.created is None:
            raise NoJobWaits(name, str(patch.job_id or patch.key))
        if updated.tickets:
            self._hooks.tickets(name)
        self._hooks.changed(name, updated.ids)
        return updated

    async def _check_room(self, queue: Queue) -> None:
        if await queues.depth(self._database, queue.name, queue.max_depth) >= queue.max_depth:
            raise QueueFull(queue.name, queue.max_depth)

    async def list_actions(self, queue: str | None, actor: str | None, before: int | None, limit: int) -> list[Action]:
        """A page of what operators did, newest first."""
        return await actions.list_actions(self._database, queue, actor, before, limit)

    async def _check(self, queue: str, order: Order) -> None:
        await self._queues.find(queue)
        if order.destination is not None:
            await self._queues.find(order.destination)

    async def _apply(self, queue: str, ids: Sequence[UUID], order: Order, walk: Walk | None) -> Outcome:
        """One transaction, and what follows from it."""
        batch = Batch(queue, ids, self._cancel_grace_ms, order.destination)
        entry = Entry(order.by, order.what or f"job.{order.change}", order.queue, order.selection)
        async with self._turn:
            outcome = await changing.change(
                self._database, batch, order.change, entry, None if walk is None else walk.action
            )
        for stop in outcome.stops:
            await self._hooks.stop(stop)
        for back in outcome.back:
            self._hooks.tickets(back)
        self._hooks.changed(queue, [job_id for job_id, status in outcome.statuses.items() if status.done])
        return outcome

    async def _stretches(
        self,
        queue: str | None,
        wanted: JobFilter,
        place: Place | None,
        most: Callable[[], int],
        skip: str | None = None,
    ) -> AsyncIterator[tuple[str, Stretch, Place | None]]:
        """Walks over the jobs of a queue or of all, from `place` on, until the call's time is over.

        `most()` is how many may be found next. Yields the queue, what was found, and where the walk goes on after it.
        """
        deadline = time.monotonic() + self.call_seconds
        names = [name for name in await self._names(queue) if name != skip and (place is None or name >= place.queue)]
        for name, following in zip(names, [*names[1:], None], strict=False):
            before = place.before if place is not None and place.queue == name else None
            while True:
                stretch = await self._look(name, wanted, before, most())
                before = stretch.ended
                here = Place(name, before) if before is not None else None
                yield name, stretch, here or (Place(following) if following is not None else None)
                if time.monotonic() >= deadline:
                    return
                if before is None:
                    break

    async def _look(self, queue: str, wanted: JobFilter, before: UUID | None, most: int) -> Stretch:
        for window in (self.window, _NARROW_WINDOW):
            try:
                async with self._database.reading() as connection:
                    return await finding.find(self._database, connection, queue, wanted, before, window, most)
            except TooMuchToRead:
                if window == _NARROW_WINDOW:
                    raise
        raise AssertionError

    async def _names(self, queue: str | None) -> Sequence[str]:
        if queue is None:
            return await self._queues.names()
        await self._queues.find(queue)
        return [queue]


@dataclass(slots=True)
class _Progress:
    """What one call has come to."""

    walk: Walk
    sample: list[Changed] = field(default_factory=list)
    looked_at: int = 0

    def counted(self, would: Sequence[Changed]) -> None:
        """A dry run found these."""
        self.sample += would[: _SAMPLE - len(self.sample)]
        self.walk = replace(self.walk, matched=self.walk.matched + len(would))

    def did(self, results: Sequence[Changed], action: int | None) -> None:
        """One transaction was committed."""
        self.sample += results[: _SAMPLE - len(self.sample)]
        changed = sum(result.status.done for result in results)
        self.walk = replace(
            self.walk,
            matched=self.walk.matched + len(results),
            changed=self.walk.changed + changed,
            left=None if self.walk.left is None else self.walk.left - changed,
            action=action,
        )
