"""What an operator does with sessions: look at them, and ask their workers to leave.

That a client is asked to leave stands in the session's row. The owner hears of it by a signal; should that be lost, its
next renewal says so, and so does a resume, wherever it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from jobwire_server.domain.sessions import ListedSession
from jobwire_server.store import listing
from jobwire_server.store.database import Database

from .session_book import SessionBook


class SessionDesk:
    """The sessions of all replicas."""

    def __init__(self, database: Database, book: SessionBook, tell_replica: Callable[..., None]) -> None:
        self._database = database
        self._book = book
        self._tell_replica = tell_replica

    async def list(self, queue: str | None, after: UUID | None, limit: int, running: int) -> list[ListedSession]:
        """A page of sessions by id, with at most so many running jobs each."""
        return await listing.list_sessions(self._database, queue, after, limit, running)

    async def drain(self, session_id: UUID) -> datetime:
        """Asks the session's worker to leave; returns since when it is asked."""
        asked = await listing.quiet_session(self._database, session_id)
        self._book.quiet(session_id)
        self._tell_replica(asked.owner, kind="quiet", session=session_id)
        return asked.since
