"""GetJob calls that wait for a change."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from uuid import UUID

from jobwire_server.store import reading
from jobwire_server.store.database import Database


class Waits:
    """Who waits for which job.

    Calls are woken by local Acks at once, by other replicas' signals, and by one poll for all of them as the floor.
    """

    def __init__(self, database: Database, listen: Callable[[str], None]) -> None:
        self._database = database
        self._listen = listen
        self._waiting: dict[tuple[str, UUID], set[asyncio.Event]] = defaultdict(set)
        self._seen: dict[tuple[str, UUID], str] = {}
        self._ended = False

    def __len__(self) -> int:
        return sum(len(events) for events in self._waiting.values())

    @property
    def queues(self) -> set[str]:
        """The queues of the jobs that somebody waits for."""
        return {queue for queue, _ in self._waiting}

    @property
    def ended(self) -> bool:
        """Whether nobody is to wait any more, since this replica drains."""
        return self._ended

    @asynccontextmanager
    async def waiting_for(self, queue: str, job_id: UUID) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever the job may have changed. Register first, look afterwards."""
        key = queue, job_id
        event = asyncio.Event()
        if self._ended:
            event.set()
        self._waiting[key].add(event)
        self._listen(queue)
        try:
            yield event
        finally:
            self._waiting[key].discard(event)
            if not self._waiting[key]:
                del self._waiting[key]
                self._seen.pop(key, None)

    def changed(self, queue: str, job_ids: Iterable[UUID]) -> None:
        """These jobs changed. The ids are only made if somebody waits."""
        if not self._waiting:
            return
        for job_id in job_ids:
            for event in self._waiting.get((queue, job_id), ()):
                event.set()

    async def poll(self, queue: str | None = None) -> None:
        """Compares what is waited for (in one queue, or in all) with the database."""
        keys = [key for key in self._waiting if queue is None or key[0] == queue]
        if not keys:
            return
        now = await reading.revisions(self._database, keys)
        for key in keys:
            revision = now[key][0] if key in now else "gone"
            if key in self._waiting and self._seen.get(key) != revision:
                self._seen[key] = revision
                self.changed(key[0], [key[1]])

    def end(self) -> None:
        """Lets every call answer with the job as it is."""
        self._ended = True
        for events in self._waiting.values():
            for event in events:
                event.set()
