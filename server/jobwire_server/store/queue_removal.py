"""Deleting a queue: what stands in the way of it, its row, and what is in it, in bounded steps."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from . import actions, arrays
from .actions import Entry
from .database import Connection, Database

_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class QueueUse:
    """What a queue is needed for."""

    live: bool
    by: str
    """Who refers to it, in words; empty if nobody does."""


@dataclass(frozen=True, slots=True)
class Removed:
    """A queue's row as it was, and the number of the record of its removal."""

    row: dict[str, Any]
    action: int


async def use(database: Database, queue: str) -> QueueUse:
    """What stands in the way of deleting a queue."""
    async with database.connection() as connection:
        return await _use(database, connection, queue)


async def _use(database: Database, connection: Connection, queue: str) -> QueueUse:
    [row] = await database.run(connection, "queue_use", {"queue": queue})
    users = [
        f"{row.sessions:,} session{'s' * (row.sessions != 1)}" if row.sessions else "",
        f"dead letters of {', '.join(row.dead_letter_of)}" if row.dead_letter_of else "",
        f"schedule {', '.join(row.schedules)}" if row.schedules else "",
    ]
    return QueueUse(row.live, " and ".join(filter(None, users)))


async def remove(database: Database, queue: str, entry: Entry, *, force: bool) -> Removed | QueueUse | None:
    """Removes a queue's row, and records it; None if there is none, what it is needed for if that is not `force`d."""
    async with database.transaction() as connection:
        if not force:
            found = await _use(database, connection, queue)
            if found.live or found.by:
                return found
        rows = await database.run(connection, "delete_queue", {"queue": queue})
        if not rows:
            return None
        if force:
            await database.run(connection, "unrefer_queue", {"queue": queue})
        return Removed(rows[0].row, await actions.record(database, connection, entry))


class After(enum.Enum):
    """What is found some time after a queue's row was removed."""

    GONE = enum.auto()
    RESTORED = enum.auto()
    """Jobs had been stored for it by those who still saw it, and it is there again."""
    CREATED_ANEW = enum.auto()


async def look_again(database: Database, queue: str, removed: Removed, *, force: bool) -> After:
    """Looks what came after a queue's row was removed; if jobs without a queue did, unless forced, puts it back."""
    async with database.transaction() as connection:
        if await database.run(connection, "get_queues", {"names": arrays.texts([queue])}):
            return After.CREATED_ANEW
        if force or not (await _use(database, connection, queue)).live:
            return After.GONE
        await database.run(connection, "lock_queue_jobs", {"queue": queue, "most": _AT_ONCE})
        await database.run(connection, "restore_queue", {"row": Jsonb(removed.row)})
        await database.run(connection, "gate_anew", {"queue": queue})
        return After.RESTORED


async def drop_live(database: Database, queue: str) -> int:
    """Deletes up to 1,000 live jobs; returns how many."""
    jobs: int = (await database.once("drop_live", {"queue": queue, "limit": _AT_ONCE}))[0].jobs
    return jobs


async def drop_rest(database: Database, queue: str) -> None:
    """Deletes the claims of a queue whose jobs have been deleted, and what its gates have noted."""
    async with database.transaction() as connection:
        await database.run(connection, "drop_claims", {"queue": queue})
        await database.run(connection, "drop_gates", {"queue": queue})


async def drop_finished(database: Database, queue: str) -> int:
    """Deletes up to 1,000 finished jobs; returns how many."""
    jobs: int = (await database.once("drop_archived", {"queue": queue, "limit": _AT_ONCE}))[0].jobs
    return jobs
