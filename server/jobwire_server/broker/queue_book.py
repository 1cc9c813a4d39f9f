"""The queues as this replica knows them: a cache over the store, at most two seconds old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from jobwire_server.domain.errors import QueueNotFound
from jobwire_server.domain.limits import DATA_BYTES_DEFAULT
from jobwire_server.domain.queues import Queue, QueueCounts, QueuePatch
from jobwire_server.store import queues as store
from jobwire_server.store.database import Database

from . import background

_FRESH_SECONDS = 2.0


class QueueBook:
    """Finds, creates and changes queues."""

    def __init__(self, database: Database, *, create: bool) -> None:
        self._database = database
        self._create = create
        self._known: dict[str, tuple[float, Queue]] = {}
        self._looks: dict[str, asyncio.Task[Queue]] = {}

    async def find(self, name: str) -> Queue:
        """The queue, or QueueNotFound."""
        seen = self._known.get(name)
        if seen is not None and time.monotonic() - seen[0] < _FRESH_SECONDS:
            return seen[1]
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
        found = (await store.get_queues(self._database, [name])).get(name)
        if found is None:
            self._known.pop(name, None)
            raise QueueNotFound(name)
        return self._remember(found)

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

    async def create(self, queue: Queue) -> tuple[Queue, bool]:
        """Makes sure that a queue exists; returns it as it is, and whether this call created it."""
        created = await store.create_queue(self._database, queue)
        self._known.pop(queue.name, None)
        return await self._look(queue.name), created

    async def update(self, name: str, patch: QueuePatch) -> Queue:
        """Changes what `patch` says. QueueNotFound if there is no such queue."""
        if not await store.update_queue(self._database, name, patch):
            raise QueueNotFound(name)
        self._known.pop(name, None)
        return await self._look(name)

    async def list(self, after: str | None, limit: int) -> list[Queue]:
        """A page of queues by name."""
        return [self._remember(queue) for queue in await store.list_queues(self._database, after, limit)]

    async def names(self) -> Sequence[str]:
        """The names of all queues."""
        return [queue.name for queue in await self.list(None, 100_000)]

    async def counts(self, names: Sequence[str]) -> dict[str, QueueCounts]:
        """The live jobs of queues."""
        return await store.count_jobs(self._database, names)

    def _remember(self, queue: Queue) -> Queue:
        self._known[queue.name] = (time.monotonic(), queue)
        return queue
