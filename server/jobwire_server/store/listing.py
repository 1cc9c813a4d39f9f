"""Sessions as an operator sees them: who works, on what, and whether it is asked to leave."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

import orjson

from jobwire_server.domain.errors import SessionLost
from jobwire_server.domain.sessions import ListedSession, RunningJob
from jobwire_server.domain.shares import Share

from .database import Database, Row


@dataclass(frozen=True, slots=True)
class Asked:
    """A session whose client is asked to leave: who serves it, and since when it is asked."""

    owner: UUID
    since: datetime


async def list_sessions(
    database: Database, queue: str | None, after: UUID | None, limit: int, running: int
) -> list[ListedSession]:
    """A page of sessions by id, with at most so many running jobs each."""
    params = {"queue": queue, "after": after, "limit": limit, "running": running}
    async with database.reading() as connection:
        return [_listed(row) for row in await database.run(connection, "list_sessions", params)]


async def quiet_session(database: Database, session_id: UUID) -> Asked:
    """Notes that a session's client is asked to leave; raises SessionLost."""
    rows = await database.once("quiet_session", {"id": session_id})
    if not rows:
        raise SessionLost(str(session_id))
    return Asked(rows[0].owner, rows[0].quiet_at)


def shares_text(shares: tuple[Share, ...]) -> str | None:
    """Shares as a session's row keeps them."""
    return orjson.dumps([asdict(share) for share in shares]).decode() if shares else None


def _listed(row: Row) -> ListedSession:
    runs = zip(row.run_queues or (), row.run_ids or (), row.run_attempts or (), row.run_since or (), strict=True)
    return ListedSession(
        id=row.id,
        epoch=row.epoch,
        owner=row.owner,
        worker=row.worker,
        queues=tuple(row.queues),
        shares=tuple(Share(**share) for share in row.shares or ()),
        max_in_flight=row.max_in_flight,
        in_flight=row.in_flight,
        running=tuple(RunningJob(*run) for run in runs),
        opened_at=row.opened_at,
        attached_at=row.attached_at,
        detached_at=row.detached_at,
        renewed_at=row.renewed_at,
        quiet_at=row.quiet_at,
    )
