"""What is swept up in steps: jobs that waited for too long, and what keys, groups and older servers leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from .archive import with_partitions
from .database import Connection, Database

_AT_ONCE = 1_000
_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Overdue:
    """The jobs that a step cancelled, and up to which id it looked; None: to the end."""

    ids: Sequence[UUID]
    upto: UUID | None


async def cancel_overdue(database: Database, queue: str, after: UUID | None, window: int = _AT_ONCE) -> Overdue:
    """Cancels those of the next jobs of `queue` that have waited longer than it allows."""
    params = {"queue": queue, "after": after or _FIRST, "window": window}

    async def work(connection: Connection) -> Overdue:
        rows = await database.run(connection, "overdue", params)
        return Overdue([row.id for row in rows if row.id is not None], rows[0].upto)

    return await with_partitions(database, work, single=True)


GuardPlace = tuple[str, int, str]
FIRST_GUARD: GuardPlace = ("", 0, "")


async def sweep_guards(
    database: Database, after: GuardPlace = FIRST_GUARD, limit: int = _AT_ONCE
) -> tuple[GuardPlace | None, int]:
    """Removes guards that keep nobody away; returns where to go on, None at the end, and how many went."""
    queue, kind, key = after
    [row] = await database.once("sweep_guards", {"queue": queue, "kind": kind, "key": key, "limit": limit})
    return None if row.queue is None else (row.queue, row.kind, row.key), row.gone


async def gated_queues(database: Database) -> list[str]:
    """The queues that have slots or turns."""
    return [row.name for row in await database.once("gated_queues")]


async def sweep_turns(database: Database, queue: str, limit: int = _AT_ONCE) -> bool:
    """Removes the turns of a queue that has no jobs now; returns whether there may be more."""
    [row] = await database.once("sweep_turns", {"queue": queue, "limit": limit})
    return bool(row.gone == limit)


async def sweep_slots(
    database: Database, queue: str, after: UUID | None = None, limit: int = _AT_ONCE
) -> tuple[UUID | None, int]:
    """Has gates see to slots whose jobs are not live; returns where to go on, None at the end, and how many."""
    [row] = await database.once("sweep_slots", {"queue": queue, "after": after or _FIRST, "limit": limit})
    return row.id, row.events
