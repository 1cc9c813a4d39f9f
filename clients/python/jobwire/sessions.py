"""The workers' sessions as an operator sees them: who works on what, and the order to leave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from jobwire.connection import Connection
from jobwire.shares import QueueShare, share_from
from jobwire.v1.session_pb2 import DrainSessionRequest, ListSessionsRequest, Session
from jobwire.wire import from_timestamp


@dataclass(frozen=True)
class RunningJob:
    """A job that a session runs."""

    queue: str
    job_id: str
    attempt: int
    """Which delivery of the job this is, from 1."""
    since: datetime


@dataclass(frozen=True)
class SessionInfo:
    """A worker's session."""

    id: str
    worker: str
    """The worker's name."""
    queues: tuple[str, ...]
    shares: tuple[QueueShare, ...]
    """What it said of its queues, if anything."""
    max_in_flight: int
    """How many jobs it takes at once."""
    in_flight: int
    """How many it runs."""
    running: tuple[RunningJob, ...]
    """Those of them that began first."""
    replica: str
    """Who serves it, or served it last."""
    opened_at: datetime
    attached_at: datetime
    """When its last stream began."""
    detached_at: datetime | None
    """Since when it has had no stream; None while it has one."""
    renewed_at: datetime
    """When its replica renewed it last; if that is long ago, the replica is gone."""
    quiet_at: datetime | None
    """Since when it has been asked to leave."""


class SessionCalls:
    """The calls of AdminService about sessions."""

    _connection: Connection
    _timeout: float

    async def list_sessions(
        self, queue: str = "", *, max_running: int = 20, page_size: int = 50
    ) -> AsyncIterator[SessionInfo]:
        """Iterate over the sessions of all replicas by id, fetching page by page.

        Args:
            queue: only sessions that take jobs from this queue.
            max_running: how many running jobs to name of each, 0 to 1000.
            page_size: how many sessions one call fetches, 1 to 200.
        """
        request = ListSessionsRequest(queue=queue, max_running=max_running, page_size=page_size)
        while True:
            response = await self._connection.call(self._connection.admin.ListSessions, request, self._timeout)
            for session in response.sessions:
                yield session_info_from(session)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def drain_session(self, session_id: str) -> datetime:
        """Ask a session's worker to leave when it has finished what it runs; raises NotFound if the session is over.

        A worker of this package takes no more jobs, of any of its queues, finishes, and its `run` returns. This does
        not wait for it. Returns since when it is asked.
        """
        request = DrainSessionRequest(session_id=session_id)
        response = await self._connection.call(self._connection.admin.DrainSession, request, self._timeout)
        return from_timestamp(response.quiet_time)


def session_info_from(session: Session) -> SessionInfo:
    """A session."""
    return SessionInfo(
        id=session.id,
        worker=session.worker,
        queues=tuple(session.queues),
        shares=tuple(map(share_from, session.shares)),
        max_in_flight=session.max_in_flight,
        in_flight=session.in_flight,
        running=tuple(
            RunningJob(job.queue, job.job_id, job.attempt, from_timestamp(job.start_time)) for job in session.running
        ),
        replica=session.replica,
        opened_at=from_timestamp(session.open_time),
        attached_at=from_timestamp(session.attach_time),
        detached_at=from_timestamp(session.detach_time) if session.HasField("detach_time") else None,
        renewed_at=from_timestamp(session.renew_time),
        quiet_at=from_timestamp(session.quiet_time) if session.HasField("quiet_time") else None,
    )
