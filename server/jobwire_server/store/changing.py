"""What an operator does to jobs of one queue that are named by their ids: one transaction, with its record.

Live rows are locked first, in the order of their ids; then whoever takes a job's ticket away decides on it, as a claim
does. So a job is changed before it is claimed, or claimed and left alone, and two operators do not meet half way. A job
comes (back) to wait through `_wait` only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from psycopg import errors

from jobwire_server.domain.errors import LockTimeout
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import CancelStatus, JobState, StopReason
from jobwire_server.domain.limits import DEDUPLICATION_HOURS, SUSPECT_LOSSES
from jobwire_server.domain.operations import WAITING, Change, Changed, ChangeStatus

from . import actions, arrays
from .actions import Entry
from .archive import with_partitions
from .database import Connection, Database
from .settling import Ending, Stop, cancel_within, settle_endings

_ROUNDS = 3
"""A job may get another ticket while one is looked for (it becomes due), and is met by the next round."""


@dataclass(slots=True)
class Outcome:
    """What a change did: a status for each id, deliveries whose workers are to be told, and queues with new tickets."""

    statuses: dict[UUID, ChangeStatus] = field(default_factory=dict)
    states: Mapping[UUID, JobState] = field(default_factory=dict)
    """In which state each was met."""
    stops: list[Stop] = field(default_factory=list)
    back: set[str] = field(default_factory=set)
    action: int | None = None
    """The number of the record."""

    def results(self, queue: str, ids: Sequence[UUID]) -> list[Changed]:
        """One for each id, in order."""
        return [Changed(queue, job_id, self.statuses[job_id], self.states.get(job_id)) for job_id in ids]


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs of one queue, by ascending id, and where they are to go if they are moved."""

    queue: str
    ids: Sequence[UUID]
    cancel_grace_ms: int
    destination: str | None = None


Work = Callable[[Database, Connection, Batch, Outcome], Awaitable[None]]


async def states(database: Database, queue: str, ids: Sequence[UUID]) -> dict[UUID, JobState]:
    """In which state jobs are; those that do not exist are left out."""
    async with database.connection() as connection:
        return await _states(database, connection, queue, ids)


async def change(
    database: Database,
    batch: Batch,
    what: Change,
    entry: Entry,
    known: int | None = None,
) -> Outcome:
    """Changes those of the jobs whose state allows it, and records it; an entry that is `known` grows."""

    async def work(connection: Connection) -> Outcome:
        outcome = Outcome()
        params = {"queues": arrays.texts([batch.queue]), "ids": arrays.uuids(batch.ids)}
        await database.run(connection, "lock_jobs", params)
        outcome.states = await _states(database, connection, batch.queue, batch.ids)
        await _WORK[what](database, connection, batch, outcome)
        left = [job_id for job_id in batch.ids if job_id not in outcome.statuses]
        if left:
            now = await _states(database, connection, batch.queue, left)
            outcome.states = {**outcome.states, **now}
            for job_id in left:
                known_one = job_id in now
                outcome.statuses[job_id] = ChangeStatus.WRONG_STATE if known_one else ChangeStatus.NOT_FOUND
        changed = sum(status.done for status in outcome.statuses.values())
        if changed or known is None:
            outcome.action = await actions.record(
                database, connection, entry, matched=len(batch.ids), changed=changed, known=known
            )
        return outcome

    try:
        return await with_partitions(database, work)
    except errors.UniqueViolation as error:
        # A job of that id came to the queue to which one was to be moved: the next try finds it there.
        raise LockTimeout from error


async def _states(database: Database, connection: Connection, queue: str, ids: Sequence[UUID]) -> dict[UUID, JobState]:
    rows = await database.run(connection, "why_not", {"queue": queue, "ids": arrays.uuids(ids)})
    # Live ones and the newest come first.
    return {row.id: JobState(row.state) for row in reversed(rows)}


async def take(
    database: Database, connection: Connection, batch: Batch, ids: Sequence[UUID], *, scheduled_only: bool = False
) -> dict[UUID, datetime | None]:
    """Takes the tickets of those that wait; returns for when each was, None if it could have been claimed."""
    taken: dict[UUID, datetime | None] = {}
    for _ in range(_ROUNDS):
        left = [job_id for job_id in ids if job_id not in taken]
        if not left:
            break
        params = {"queue": batch.queue, "ids": arrays.uuids(left), "scheduled_only": scheduled_only}
        rows = await database.run(connection, "take_tickets", params)
        taken |= {row.id: row.due for row in rows}
        if scheduled_only:
            break
        if not rows:
            now = await _states(database, connection, batch.queue, left)
            if not any(state in WAITING for state in now.values()):
                break
    return dict(sorted(taken.items()))


async def wait(
    database: Database, connection: Connection, queue: str, dues: Mapping[UUID, datetime | None], outcome: Outcome
) -> None:
    """Lets live jobs without tickets wait, until their time or for a claim: the one way (back) to waiting from here."""
    if not dues:
        return
    params = {
        "queue": queue,
        "ids": arrays.uuids(dues),
        "dues": arrays.timestamps(dues.values()),
        "suspect": SUSPECT_LOSSES,
    }
    if await database.run(connection, "put_tickets", params):
        outcome.back.add(queue)


def _named(queue: str, ids: Sequence[UUID]) -> dict[str, object]:
    return {"queue": queue, "ids": arrays.uuids(ids)}


def _done(outcome: Outcome, ids: Sequence[UUID]) -> None:
    outcome.statuses |= dict.fromkeys(ids, ChangeStatus.CHANGED)


async def _cancel(database: Database, connection: Connection, batch: Batch, outcome: Outcome) -> None:
    cancelled = await cancel_within(database, connection, batch.queue, batch.ids, batch.cancel_grace_ms)
    outcome.stops += cancelled.stops
    for job_id, status in cancelled.statuses.items():
        if status is CancelStatus.CANCELLED:
            outcome.statuses[job_id] = ChangeStatus.CHANGED
        elif status is CancelStatus.REQUESTED:
            outcome.statuses[job_id] = ChangeStatus.REQUESTED


async def _revive(
    database: Database, connection: Connection, batch: Batch, outcome: Outcome, what: Change, *, anew: bool
) -> None:
    finished = [job_id for job_id in _finished(batch, outcome) if outcome.states[job_id] in what.applies_to]
    ids = await _take_keys(database, connection, batch, finished, batch.queue, outcome)
    params = _named(batch.queue, ids) | {"states": arrays.int4s(sorted(what.applies_to)), "anew": anew}
    back = {row.id: row.due for row in await database.run(connection, "revive", params)}
    await wait(database, connection, batch.queue, back, outcome)
    _done(outcome, list(back))


async def _take_keys(
    database: Database,
    connection: Connection,
    batch: Batch,
    ids: Sequence[UUID],
    destination: str,
    outcome: Outcome,
) -> list[UUID]:
    """Those of the jobs that may wait in a queue, as far as its policy minds their keys; now they have them."""
    params = _named(batch.queue, ids) | {"destination": destination}
    refused = {row.id for row in await database.run(connection, "take_keys", params)}
    outcome.statuses |= dict.fromkeys(refused, ChangeStatus.KEY_TAKEN)
    return [job_id for job_id in ids if job_id not in refused]


async def _retry(database: Database, connection: Connection, batch: Batch, outcome: Outcome) -> None:
    await _revive(database, connection, batch, outcome, Change.RETRY, anew=True)


async def _resume(database: Database, connection: Connection, batch: Batch, outcome: Outcome) -> None:
    await _revive(database, connection, batch, outcome, Change.RESUME, anew=False)


async def _delete(database: Database, connection: Connection, batch: Batch, outcome: Outcome) -> None:
    taken = list(await take(database, connection, batch, _live(batch, outcome)))
    if taken:
        await database.run(connection, "drop_jobs", _named(batch.queue, taken))
        _done(outcome, taken)
    finished = _finished(batch, outcome)
    if finished:
        rows = await database.run(connection, "drop_finished", _named(batch.queue, finished))
        _done(outcome, [row.id for row in rows])
    if taken or finished:
        await database.run(connection, "forget_members", _named(batch.queue, [*taken, *finished]))


async def _release(database: Database, connection: Connection, batch: Batch, outcome: Outcome) -> None:
    leases = {row.id: row for row in await database.run(connection, "leases_of", _named(batch.queue, batch.ids))}
    endings = [Ending(Handle(batch.queue, row.id, row.token, row.place), lost=False) for row in leases.values()]
    if not endings:
        return
    for settled in await settle_endings(database, connection, batch.queue, endings):
        lease = leases[settled.id]
        handle = Handle(batch.queue, lease.id, lease.token, lease.place)
        outcome.stops.append(Stop(handle, StopReason.LEASE_LOST, lease.session_id, lease.owner, 0))
        outcome.statuses[settled.id] = ChangeStatus.CHANGED
        outcome.back.add(batch.queue)


async def _move(database: Database, connection: Connection, batch: Batch, outcome: Outcome) -> None:
    assert batch.destination is not None
    ids = _live(batch, outcome)
    there = _named(batch.destination, ids) | {"hours": DEDUPLICATION_HOURS}
    taken_ids = {row.id for row in await database.run(connection, "known_ids", there)}
    outcome.statuses |= dict.fromkeys(
        (job_id for job_id in ids if job_id in taken_ids and outcome.states[job_id] in WAITING), ChangeStatus.ID_TAKEN
    )
    free = [job_id for job_id in ids if job_id not in taken_ids and outcome.states[job_id] in WAITING]
    free = await _take_keys(database, connection, batch, free, batch.destination, outcome)
    taken = await take(database, connection, batch, free)
    if taken:
        moving = _named(batch.queue, list(taken)) | {"destination": batch.destination}
        await database.run(connection, "move_jobs", moving)
        await wait(database, connection, batch.destination, taken, outcome)
        await database.run(connection, "forget_members", _named(batch.queue, list(taken)))
        _done(outcome, list(taken))


async def _run(database: Database, connection: Connection, batch: Batch, outcome: Outcome) -> None:
    taken = await take(database, connection, batch, _live(batch, outcome), scheduled_only=True)
    if taken:
        await database.run(connection, "start_now", _named(batch.queue, list(taken)))
        await wait(database, connection, batch.queue, dict.fromkeys(taken), outcome)
        _done(outcome, list(taken))


async def _erase(database: Database, connection: Connection, batch: Batch, outcome: Outcome) -> None:
    waiting = [job_id for job_id in batch.ids if outcome.states.get(job_id) in WAITING]
    cancelled = set[UUID]()
    for _ in range(_ROUNDS if waiting else 0):
        left = [job_id for job_id in waiting if job_id not in cancelled]
        cancelled |= {row.id for row in await database.run(connection, "cancel_waiting", _named(batch.queue, left))}
    ids = sorted({*cancelled, *_finished(batch, outcome)})
    if ids:
        rows = await database.run(connection, "erase_finished", _named(batch.queue, ids))
        _done(outcome, [row.id for row in rows])


def _live(batch: Batch, outcome: Outcome) -> list[UUID]:
    return [job_id for job_id in batch.ids if job_id in outcome.states and not outcome.states[job_id].finished]


def _finished(batch: Batch, outcome: Outcome) -> list[UUID]:
    return [job_id for job_id in batch.ids if job_id in outcome.states and outcome.states[job_id].finished]


_WORK: Final[Mapping[Change, Work]] = {
    Change.CANCEL: _cancel,
    Change.RETRY: _retry,
    Change.RESUME: _resume,
    Change.DELETE: _delete,
    Change.RELEASE: _release,
    Change.MOVE: _move,
    Change.RUN: _run,
    Change.ERASE: _erase,
}
