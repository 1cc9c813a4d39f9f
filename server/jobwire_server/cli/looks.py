"""What `jobwire top` sees: one look at the server, and what two looks tell of the time between them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jobwire import Client, JobInfo, JobState, QueueCounts, SessionInfo

_FAILURES = 10
"""How many failures are kept, the newest ones."""
_RUNNING = 3
"""How many running jobs of each session are named."""
_ASKED = 10
"""In how many queues at once it is asked for new failures."""


@dataclass(frozen=True)
class Failure:
    """A job that failed for good."""

    queue: str
    job_id: str
    at: datetime | None
    type: str
    message: str


@dataclass(frozen=True)
class QueueLine:
    """A queue as it stands."""

    name: str
    counts: QueueCounts
    waiting_per_second: float | None = None
    """How fast the jobs that wait become more, or fewer; None at the first look."""
    failed_per_second: float | None = None
    """How many jobs failed for good, net of those that were cleared away."""

    @property
    def waiting(self) -> int:
        """How many wait, for whatever."""
        return self.counts.ready + self.counts.scheduled + self.counts.blocked


@dataclass(frozen=True)
class Look:
    """The server at one moment."""

    at: float
    """When, by the clock that measures the time between looks."""
    queues: Sequence[QueueLine]
    sessions: Sequence[SessionInfo]
    failures: Sequence[Failure]
    """The newest ones, the last first."""


async def look(client: Client, before: Look | None) -> Look:
    """Looks once more. Where failures became more since `before`, their jobs are asked for."""
    queues = await client.admin.list_queues()
    sessions = [session async for session in client.admin.list_sessions(max_running=_RUNNING)]
    at = asyncio.get_running_loop().time()
    lines = lines_since(before, at, {queue.name: queue.counts for queue in queues if queue.counts is not None})
    known = {line.name: line.counts.failed for line in before.queues} if before else {}
    grown = [line for line in lines if line.counts.failed > known.get(line.name, 0)]
    # At the first look there may be many; those with the most come first.
    grown.sort(key=lambda line: line.counts.failed - known.get(line.name, 0), reverse=True)
    found = [await _failures(client, line.name) for line in grown[:_ASKED]]
    return Look(
        at, lines, sessions, newest([*(before.failures if before else ()), *(each for all_ in found for each in all_)])
    )


def lines_since(before: Look | None, at: float, counts: dict[str, QueueCounts]) -> list[QueueLine]:
    """A line for each queue, with its rates since the look before."""
    known = {line.name: line for line in before.queues} if before else {}
    lines = []
    for name, now in counts.items():
        line = QueueLine(name, now)
        then = known.get(name)
        if then is not None and before is not None and at > before.at:
            span = at - before.at
            line = QueueLine(name, now, (line.waiting - then.waiting) / span, (now.failed - then.counts.failed) / span)
        lines.append(line)
    return lines


def newest(failures: Sequence[Failure]) -> list[Failure]:
    """The last failures, each job once."""
    unique = {(failure.queue, failure.job_id): failure for failure in failures}
    return sorted(unique.values(), key=lambda failure: failure.at.timestamp() if failure.at else 0.0, reverse=True)[
        :_FAILURES
    ]


async def _failures(client: Client, queue: str) -> list[Failure]:
    return [_failure(job) async for job in client.admin.list_jobs(queue, [JobState.FAILED], limit=_FAILURES)]


def _failure(job: JobInfo) -> Failure:
    error = job.errors[-1] if job.errors else None
    return Failure(job.queue, job.id, job.finished_at, error.type if error else "", error.message if error else "")
