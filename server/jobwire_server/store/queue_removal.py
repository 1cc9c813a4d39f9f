"""Deleting a queue: what stands in the way of it, its row, and what is in it, in bounded steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from . import actions
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
    ]
    return QueueUse(row.live, " and ".join(filter(None, users)))


async def remove(database: Database, queue: str, entry: Entry, *, force: bool) -> Removed | QueueUse | None:
    """Removes a queue's row, and records it; None if there is none, what it is needed for if that is not `force`d."""
    async with database.transaction() as connection:
        rows = await database.run(connection, "delete_queue", {"queue": queue})
        if not rows:
            return None
        if force:
            await database.run(connection, "unrefer_queue", {"queue": queue})
        else:
            found = await _use(database, connection, queue)
            if found.live or found.by:
                await database.run(connection, "restore_queue", {"row": Jsonb(rows[0].row)})
                return found
        return Removed(rows[0].row, await actions.record(database, connection, entry))


async def restore_if_live(database: Database, queue: str, removed: Removed) -> bool:
    """Puts a queue back if jobs have come to it since; returns whether they have."""
    async with database.transaction() as connection:
        if not (await _use(database, connection, queue)).live:
            return False
        await database.run(connection, "restore_queue", {"row": Jsonb(removed.row)})
        return True


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
