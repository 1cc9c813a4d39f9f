"""The record of what operators did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg.types.json import Jsonb

from jobwire_server.domain.operations import Action

from .database import Connection, Database

_KEPT_DAYS = 90
_FORGOTTEN_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be written down: who, what (such as `job.cancel`), where (None: in all queues), and about what."""

    actor: str
    what: str
    queue: str | None = None
    selection: Mapping[str, object] = field(default_factory=dict)


async def record(
    database: Database,
    connection: Connection,
    entry: Entry,
    *,
    matched: int = 0,
    changed: int = 0,
    known: int | None = None,
) -> int:
    """Writes an entry within the caller's transaction; one that is `known` grows instead. Returns its number."""
    [row] = await database.run(
        connection,
        "record_action",
        {
            "id": known,
            "actor": entry.actor,
            "what": entry.what,
            "queue": entry.queue,
            "selection": Jsonb(entry.selection),
            "matched": matched,
            "changed": changed,
        },
    )
    number: int = row.id
    return number


async def list_actions(
    database: Database, queue: str | None, actor: str | None, before: int | None, limit: int
) -> list[Action]:
    """A page, newest first."""
    async with database.reading() as connection:
        rows = await database.run(
            connection, "list_actions", {"queue": queue, "actor": actor, "before": before, "limit": limit}
        )
    return [
        Action(row.id, row.at, row.actor, row.what, row.queue, row.selection, row.matched, row.changed) for row in rows
    ]


async def forget_old(database: Database) -> int:
    """Removes what is older than 90 days; returns how many."""
    forgotten = 0
    while True:
        [row] = await database.once("forget_actions", {"days": _KEPT_DAYS, "limit": _FORGOTTEN_AT_ONCE})
        gone: int = row.actions
        forgotten += gone
        if gone < _FORGOTTEN_AT_ONCE:
            return forgotten
