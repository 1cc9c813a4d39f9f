"""Changing jobs that wait, by id or by key, and storing one if none waits.

A job's ticket is taken, its row changed, and its ticket put back, in one transaction: a claim has either what was
before, and then the job is not changed any more, or what comes after. Its place in the line stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from jobwire_server.domain.operations import JobPatch, WhichJobs

from . import actions, arrays, publishing
from .actions import Entry
from .changing import Batch, Outcome, take, wait
from .database import Connection, Database
from .publishing import Stored

_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Updated:
    """The jobs that were changed, and the one that was stored because none waited."""

    ids: Sequence[UUID]
    created: UUID | None = None
    tickets: bool = False
    """Whether one of them may be claimed."""


async def update(
    database: Database, queue: str, patch: JobPatch, entry: Entry, otherwise: Stored | None = None
) -> Updated:
    """Changes waiting jobs and records it; if none waits, stores what is said `otherwise`."""
    async with database.transaction() as connection:
        if otherwise is not None and patch.key is not None:
            await database.run(connection, "lock_key", {"queue": queue, "key": patch.key})
        outcome = Outcome()
        ids = await _update(database, connection, queue, patch, outcome)
        created = None
        if not ids and otherwise is not None:
            created = await publishing.store_one(database, connection, otherwise)
        if ids or created is not None:
            changed = len(ids) + (created is not None)
            await actions.record(database, connection, entry, matched=changed, changed=changed)
        return Updated(ids, created, bool(outcome.back) or created is not None)


async def _update(
    database: Database, connection: Connection, queue: str, patch: JobPatch, outcome: Outcome
) -> Sequence[UUID]:
    for _ in range(_ROUNDS):
        wanted = [patch.job_id] if patch.job_id is not None else await _of_key(database, connection, queue, patch)
        if not wanted:
            return ()
        ids = sorted(wanted)
        await database.run(connection, "lock_jobs", {"queues": arrays.texts([queue]), "ids": arrays.uuids(ids)})
        taken = await take(database, connection, Batch(queue, ids, 0), ids)
        if not taken:
            # Claimed meanwhile; of a key there may be another.
            continue
        changes = {"data": patch.data, "rank": None if patch.priority is None else -patch.priority}
        times = {"start_at": patch.start_after, "start_in_ms": patch.start_in_ms}
        params = {"queue": queue, "ids": arrays.uuids(taken)} | changes | times | asdict(patch.options)
        rows = await database.run(connection, "update_waiting", params)
        if patch.start_after is not None or patch.start_in_ms is not None:
            taken = {row.id: row.start_after for row in rows}
        await wait(database, connection, queue, taken, outcome)
        return list(taken)
    return ()


async def _of_key(database: Database, connection: Connection, queue: str, patch: JobPatch) -> Sequence[UUID]:
    params = {
        "queue": queue,
        "key": patch.key,
        "newest": patch.which is not WhichJobs.OLDEST,
        "limit": patch.which.most,
    }
    return [row.id for row in await database.run(connection, "waiting_of_key", params)]
