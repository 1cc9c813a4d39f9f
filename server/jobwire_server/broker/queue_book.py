"""The queues as this replica knows them: a cache over the store, at most two seconds old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from jobwire_server.domain.errors import FieldViolation, InvalidArgument, QueueNotFound
from jobwire_server.domain.limits import DATA_BYTES_DEFAULT
from jobwire_server.domain.queues import Queue, QueueCounts, QueuePatch
from jobwire_server.store import queues as store
from jobwire_server.store.database import Database

from . import background

FRESH_SECONDS = 2.0
"""For so long a queue is taken to be as it was seen."""
_IN_USE_SECONDS = 60.0
_LOOKED_AT_ONCE = 1_000


@dataclass(slots=True)
class _Entry:
    queue: Queue
    since: float
    used: float = 0.0

    def outdated(self, now: float) -> bool:
        return now - self.since >= FRESH_SECONDS

    def in_use(self, now: float) -> bool:
        return now - self.used < _IN_USE_SECONDS


class QueueBook:
    """Finds, creates and changes queues."""

    def __init__(self, database: Database, *, create: bool) -> None:
        self._database = database
        self._create = create
        self._known: dict[str, _Entry] = {}
        self._looks: dict[str, asyncio.Task[Queue]] = {}

    async def find(self, name: str) -> Queue:
        """The queue, or QueueNotFound."""
        entry = self._known.get(name)
        if entry is not None:
            entry.used = time.monotonic()
            if not entry.outdated(entry.used):
                return entry.queue
        # One look for all who ask meanwhile: a thousand calls of one queue find it outdated at the same moment.
        look = self._looks.get(name)
        if look is None:
            look = self._looks[name] = background.start(self._look(name))
            look.add_done_callback(lambda _: self._looked(name))
        return await asyncio.shield(look)

    def _looked(self, name: str) -> None:
        look = self._looks.pop(name)
        if not look.cancelled():
            look.exception()  # told to all who asked; it is no error that they may have left meanwhile

    async def _look(self, name: str) -> Queue:
        """Looks at all that are outdated and in use: with a thousand queues each publish would find one that is.

        One that a change here made anew meanwhile is known better.
        """
        now = time.monotonic()
        outdated = [(other, entry) for other, entry in self._known.items() if entry.outdated(now) and entry.in_use(now)]
        others = dict(outdated[:_LOOKED_AT_ONCE])
        others.pop(name, None)
        for entry in others.values():
            entry.since = now  # nobody else is to look meanwhile
        try:
            found = await store.get_queues(self._database, [name, *others])
        except BaseException:
            for other in others:
                self._known.pop(other, None)
            raise
        for other, entry in others.items():
            if self._known.get(other) is entry:
                self._keep(other, found.get(other))
        self._keep(name, found.get(name))
        if name not in found:
            raise QueueNotFound(name)
        return found[name]

    def _keep(self, name: str, queue: Queue | None) -> None:
        if queue is None:
            self._known.pop(name, None)
        else:
            self._remember(queue)

    def known(self, name: str) -> Queue | None:
        """The queue as it was last seen, if it was."""
        entry = self._known.get(name)
        return None if entry is None else entry.queue

    async def refresh(self, name: str) -> Queue:
        """The queue, looked at anew; as `for_publish`."""
        self._known.pop(name, None)
        return await self.for_publish(name)

    async def pause(self, name: str, by: str, *, paused: bool) -> Queue:
        """Has nothing of a queue be claimed any more, or again. QueueNotFound if there is no such queue."""
        if not await store.pause_queue(self._database, name, by, paused=paused):
            raise QueueNotFound(name)
        self._known.pop(name, None)
        return await self._look(name)

    async def for_publish(self, name: str) -> Queue:
        """The queue; if there is none it is created with the defaults, unless that is switched off."""
        try:
            return await self.find(name)
        except QueueNotFound:
            if not self._create:
                raise
        return (await self.create(Queue(name)))[0]

    async def limit_for(self, name: str) -> int:
        """The largest payload or output of the queue in bytes; the default if it is unknown."""
        try:
            return (await self.find(name)).max_data_bytes
        except QueueNotFound:
            return DATA_BYTES_DEFAULT

    async def create(self, queue: Queue, by: str | None = None) -> tuple[Queue, bool]:
        """Makes sure that a queue exists; returns it as it is, and whether this call created it.

        It is recorded if an operator asks for it, `by` name.
        """
        await self.check_chain(queue.name, queue.options.dead_letter)
        created = await store.create_queue(self._database, queue, by)
        self._known.pop(queue.name, None)
        return await self._look(queue.name), created

    async def update(self, name: str, patch: QueuePatch, by: str = "") -> Queue:
        """Changes what `patch` says, and records `by` whom. QueueNotFound if there is no such queue."""
        await self.check_chain(name, patch.options.dead_letter)
        if not await store.update_queue(self._database, name, patch, by):
            raise QueueNotFound(name)
        self._known.pop(name, None)
        return await self._look(name)

    def forget(self, name: str) -> None:
        """The queue is gone."""
        self._known.pop(name, None)

    async def check_dead_letter(self, name: str, target: str, at: str) -> Queue:
        """The dead letter queue `target` of jobs in `name`: another one. QueueNotFound if there is no such queue."""
        if target == name:
            raise InvalidArgument(FieldViolation(at, f"must be another queue than {name!r} itself"))
        return await self.find(target)

    async def check_chain(self, name: str, target: str | None) -> None:
        """Checks `target` as the dead letter queue of all of `name`: it must not lead back there."""
        at, passed = "queue.options.dead_letter", [name]
        while target and target not in passed[1:]:
            if len(passed) > 1 and target == name:
                rule = f"leads back to {name!r}, by way of {', '.join(passed[1:])}"
                raise InvalidArgument(FieldViolation(at, rule))
            passed.append(target)
            target = (await self.check_dead_letter(name, target, at)).options.dead_letter

    async def list(self, after: str | None, limit: int) -> list[Queue]:
        """A page of queues by name."""
        return [self._remember(queue) for queue in await store.list_queues(self._database, after, limit)]

    async def names(self) -> Sequence[str]:
        """The names of all queues."""
        return [queue.name for queue in await self.list(None, 100_000)]

    async def counts(self, names: Sequence[str]) -> dict[str, QueueCounts]:
        """The jobs of queues that are live or failed."""
        return await store.count_jobs(self._database, names)

    def _remember(self, queue: Queue) -> Queue:
        before, now = self._known.get(queue.name), time.monotonic()
        self._known[queue.name] = _Entry(queue, now, used=before.used if before is not None else now)
        return queue
