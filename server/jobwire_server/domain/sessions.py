"""Sessions as an operator sees them: who works, on what, and whether it is asked to leave."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from .shares import Share


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A delivery that holds a lease."""

    queue: str
    job_id: UUID
    attempt: int
    since: datetime


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session's row, the number of its valid leases, and those of them that began first."""

    id: UUID
    epoch: int
    owner: UUID
    worker: str
    queues: tuple[str, ...]
    shares: tuple[Share, ...]
    max_in_flight: int
    in_flight: int
    running: tuple[RunningJob, ...]
    opened_at: datetime
    attached_at: datetime
    detached_at: datetime | None
    renewed_at: datetime
    quiet_at: datetime | None
