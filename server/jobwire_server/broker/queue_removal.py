"""Deleting queues.

Who still sees a queue while its row is removed may store jobs for it: a statement under way, a transaction that called
publish() in SQL. So it is waited for a moment after that, and looked at again: had jobs come, the queue is put back and
the deletion refused. What comes still later, from a transaction that stayed open for longer, waits under the queue's
name, and is met by the queue of that name that the next Publish or Subscribe creates.
"""

from __future__ import annotations

import asyncio
import enum
import time
from dataclasses import dataclass, replace

from jobwire_server.domain.errors import QueueNotEmpty, QueueNotFound, QueueReferenced
from jobwire_server.store import queue_removal as store
from jobwire_server.store.actions import Entry
from jobwire_server.store.database import Database

from .queue_book import FRESH_SECONDS, QueueBook

_CALL_SECONDS = 2.0
_LATER_SECONDS = FRESH_SECONDS + 0.5
"""After so long nobody publishes any more who saw the queue before."""


class Step(enum.StrEnum):
    """What is to be done next."""

    LIVE = "live"
    ROW = "row"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Removal:
    """How far the deletion of a queue has come. `step` None: the queue is gone."""

    step: Step | None = None
    jobs: int = 0


class QueueRemoval:
    """Deletes queues, step by step."""

    later_seconds = _LATER_SECONDS

    def __init__(self, database: Database, queues: QueueBook) -> None:
        self._database = database
        self._queues = queues
        self._turn = asyncio.Semaphore(1)

    async def delete(self, name: str, removal: Removal | None, by: str, *, force: bool) -> Removal:
        """Goes on with a deletion (None: begins it) for as long as one call may take."""
        if removal is None:
            await self._queues.find(name)
            if not force:
                _check(name, await store.use(self._database, name))
            removal = Removal(Step.LIVE if force else Step.ROW)
        deadline = time.monotonic() + _CALL_SECONDS
        async with self._turn:
            # Each step is a call of its own, since each may take as long as a call may.
            if removal.step is Step.LIVE:
                return await self._drop_live(name, removal, deadline)
            if removal.step is Step.ROW:
                return await self._drop_row(name, removal, by, force=force)
            return await self._drop_finished(name, removal, deadline)

    async def _drop_live(self, name: str, removal: Removal, deadline: float) -> Removal:
        while time.monotonic() < deadline:
            jobs = await store.drop_live(self._database, name)
            removal = replace(removal, jobs=removal.jobs + jobs)
            if not jobs:
                return replace(removal, step=Step.ROW)
        return removal

    async def _drop_row(self, name: str, removal: Removal, by: str, *, force: bool) -> Removal:
        entry = Entry(by, "queue.delete", name, {"force": force, "jobs": removal.jobs})
        removed = await store.remove(self._database, name, entry, force=force)
        self._queues.forget(name)
        if removed is None:
            raise QueueNotFound(name)
        if isinstance(removed, store.QueueUse):
            _check(name, removed)
            return removal
        await asyncio.sleep(self.later_seconds)
        match await store.look_again(self._database, name, removed, force=force):
            case store.After.CREATED_ANEW:
                # Somebody has published to a queue of that name since: it is another one, and so are its jobs.
                return replace(removal, step=None)
            case store.After.RESTORED:
                raise QueueNotEmpty(name)
            case store.After.GONE:
                while force and (jobs := await store.drop_live(self._database, name)):
                    removal = replace(removal, jobs=removal.jobs + jobs)
        await store.drop_rest(self._database, name)
        return replace(removal, step=Step.FINISHED)

    async def _drop_finished(self, name: str, removal: Removal, deadline: float) -> Removal:
        while time.monotonic() < deadline:
            jobs = await store.drop_finished(self._database, name)
            removal = replace(removal, jobs=removal.jobs + jobs)
            if not jobs:
                return replace(removal, step=None)
        return removal


def _check(name: str, use: store.QueueUse) -> None:
    if use.live:
        raise QueueNotEmpty(name)
    if use.by:
        raise QueueReferenced(name, use.by)
