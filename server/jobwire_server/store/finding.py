"""Finding jobs by what they are like, a bounded stretch at a time.

No index serves every filter, and none is kept that plain jobs would pay for. So a search walks over a queue's jobs by
descending id and looks at so many at once; whoever searches goes on from where it ended, for as long as time allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from jobwire_server.domain.jobs import FINISHED, Job, JobState
from jobwire_server.domain.operations import LIVE, JobFilter

from . import arrays
from .database import Connection, Database
from .reading import job_from


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one look found: ids and states by descending id; where it ended (None: at the queue's end); its length."""

    found: Sequence[tuple[UUID, JobState]]
    ended: UUID | None
    looked_at: int


async def find(
    database: Database,
    connection: Connection,
    queue: str,
    wanted: JobFilter,
    before: UUID | None,
    window: int,
    limit: int,
) -> Stretch:
    """Looks at the next `window` jobs of a queue before the id `before`; finds `limit` at most.

    For a connection of `Database.reading`.
    """
    possible = wanted.possible
    live, finished = possible & LIVE, possible & FINISHED
    params = {
        "queue": queue,
        "before": before,
        "window": window,
        "limit": limit,
        "live": bool(live),
        "any_live": live == LIVE,
        "active_only": live == {JobState.ACTIVE},
        "blocked_only": live == {JobState.BLOCKED},
        "finished": bool(finished),
        "incomplete_only": JobState.COMPLETED not in finished,
        "states": arrays.int4s(sorted(possible)),
        "key": wanted.key,
        "group": wanted.group,
        "worker": wanted.worker,
        "error_type": wanted.error_type,
        "error_text": wanted.error_text,
        "created_from": wanted.created_from,
        "created_before": wanted.created_before,
        "finished_from": wanted.finished_from,
        "finished_before": wanted.finished_before,
        "rank_from": None if wanted.priority_to is None else -wanted.priority_to,
        "rank_to": None if wanted.priority_from is None else -wanted.priority_from,
        "contains": wanted.contains,
    }
    [row] = await database.run(connection, "find_jobs", params)
    ends = [end for end in (row.live_end, row.old_end) if end is not None]
    # Beyond the end of either kind nothing is known yet of that kind.
    ended = max(ends, default=None)
    both = [*zip(row.live_ids, row.live_states, strict=True), *zip(row.old_ids, row.old_states, strict=True)]
    newest = {job_id: JobState(state) for job_id, state in reversed(both) if ended is None or job_id >= ended}
    found = sorted(newest.items(), reverse=True)
    if len(found) > limit:
        found = found[:limit]
        ended = found[-1][0]
    return Stretch(found, ended, row.looked_at)


async def jobs_named(database: Database, connection: Connection, queue: str, ids: Sequence[UUID]) -> list[Job]:
    """Jobs of one queue, in the order of the ids; those that are gone are left out."""
    rows = await database.run(connection, "jobs_named", {"queue": queue, "ids": arrays.uuids(ids)})
    return [job_from(row) for row in rows]
