"""Dead letters on their way: see migrations/0007_dead_letters.sql."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from jobwire_server.domain.dead_letters import Carried, Refusal, Undelivered
from jobwire_server.domain.limits import DEDUPLICATION_HOURS

from .database import Database

_AT_ONCE = 200
_FIRST = ("", UUID(int=0), datetime(1, 1, 2, tzinfo=UTC))


async def carry(database: Database) -> Carried | None:
    """Makes jobs of the letters that are due for one queue, some at a time; None if none is due."""
    [row] = await database.once("carry_letters", {"limit": _AT_ONCE, "hours": DEDUPLICATION_HOURS})
    return None if row.target is None else Carried(row.target, row.taken, row.refused, row.gated)


async def undelivered(
    database: Database, target: str | None, after: tuple[str, UUID, datetime] | None, limit: int
) -> Sequence[Undelivered]:
    """A page of the letters that were refused, for one queue or all, by the jobs they come from."""
    queue, job_id, time = after or _FIRST
    params = {"target": target, "after_queue": queue, "after_id": job_id, "after_time": time, "limit": limit}
    return [
        Undelivered(
            row.queue,
            row.id,
            row.target,
            row.key,
            row.failed_at,
            row.tries,
            row.retry_at,
            Refusal(row.refusal),
            row.met,
        )
        for row in await database.once("list_letters", params)
    ]
