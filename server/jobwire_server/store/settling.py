"""Recording what became of deliveries.

Every transaction locks live rows in the order of queue and id, and tickets only after them, so that no two can
deadlock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import (
    AckItem,
    AckResult,
    AckStatus,
    CancelStatus,
    Complete,
    Extend,
    Fail,
    JobState,
    Release,
    StopReason,
)
from jobwire_server.domain.limits import POISON_LOSSES, SUSPECT_LOSSES

from . import arrays
from .archive import with_partitions
from .database import Connection, Database, Row


@dataclass(frozen=True, slots=True)
class Settled:
    """What a batch of Acks did.

    A result for each item, in order; for each queue how soon a job given back may be claimed again; and whether there
    are dead letters to be carried over.
    """

    results: list[AckResult]
    back_in: dict[str, timedelta]
    letters: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """A lease that ends without its worker. `lost`: counted against the job; otherwise not."""

    handle: Handle
    lost: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """A delivery whose worker is to be told to stop, and who serves it."""

    handle: Handle
    reason: StopReason
    session_id: UUID
    owner: UUID | None
    grace_ms: int


async def settle(database: Database, items: Sequence[AckItem]) -> Settled:
    """Applies `items` in one transaction. Each handle must occur once."""
    # One statement applies them then; what comes after it only asks about those it did not apply.
    single = all(isinstance(outcome, Complete) for _, outcome in items) or len({_kind(item) for item in items}) == 1
    return await with_partitions(database, lambda connection: _settle(database, connection, items), single=single)


async def _settle(database: Database, connection: Connection, items: Sequence[AckItem]) -> Settled:
    mine = sorted(items, key=lambda item: (item.handle.queue_bytes, item.handle.job_id_bytes))
    done = {handle: outcome for handle, outcome in mine if isinstance(outcome, Complete)}
    given = _by_queue(item for item in mine if isinstance(item.outcome, Fail | Release))
    running = _by_queue(item for item in mine if isinstance(item.outcome, Extend))
    results: dict[Handle, AckResult] = {}
    back_in: dict[str, timedelta] = {}
    letters = False
    if bool(done) + bool(given) + bool(running) > 1:
        await database.run(connection, "lock_jobs", _named([item.handle for item in mine]))
    if done:
        results |= await _complete(database, connection, done)
    for queue, those in given.items():
        given_back, soonest, left_letters = await _settle_by_rules(database, connection, queue, those)
        results |= given_back
        letters |= left_letters
        if soonest is not None:
            back_in[queue] = soonest
    for queue, those in running.items():
        results |= await _extend(database, connection, queue, those)
    if len(results) < len(items):
        for queue, missed in _by_queue(item for item in mine if item.handle not in results).items():
            results |= await _why_not(database, connection, queue, [item.handle for item in missed])
    return Settled([results[item.handle] for item in items], back_in, letters)


def _by_queue(items: Iterable[AckItem]) -> dict[str, list[AckItem]]:
    groups: dict[str, list[AckItem]] = defaultdict(list)
    for item in items:
        groups[item.handle.queue].append(item)
    return groups


def _named(handles: Sequence[Handle]) -> dict[str, Any]:
    """Jobs as parameters of a statement: their ids, and a queue for each, or the one queue of all."""
    queues = {handle.queue_bytes for handle in handles}
    return {
        "queues": arrays.texts([handle.queue for handle in (handles if len(queues) > 1 else handles[:1])]),
        "ids": arrays.raw_uuids([handle.job_id_bytes for handle in handles]),
    }


async def _complete(
    database: Database, connection: Connection, done: Mapping[Handle, Complete]
) -> dict[Handle, AckResult]:
    handles = list(done)
    params = _named(handles) | {
        "tokens": arrays.raw_uuids([handle.token_bytes for handle in handles]),
        "places": arrays.int4s([handle.place for handle in handles]),
        "outputs": arrays.texts([outcome.output for outcome in done.values()]),
    }
    [row] = await database.run(connection, "complete", params)
    applied = handles if row.places is None else [handles[place - 1] for place in row.places]
    return dict.fromkeys(applied, AckResult(AckStatus.APPLIED, JobState.COMPLETED))


async def _settle_by_rules(
    database: Database, connection: Connection, queue: str, items: Sequence[AckItem]
) -> tuple[dict[Handle, AckResult], timedelta | None, bool]:
    rows = await database.run(
        connection,
        "settle",
        {
            "queue": queue,
            "poison": POISON_LOSSES,
            "suspect": SUSPECT_LOSSES,
            "items": Jsonb([_key(item.handle) | _rule(item) for item in items]),
        },
    )
    results = {}
    for row in rows:
        state = JobState(row.state)
        results[row.id, row.token] = AckResult(
            AckStatus.CANCELLED if state is JobState.CANCELLED else AckStatus.APPLIED, state
        )
    soonest = min((row.pause for row in rows if row.pause is not None), default=None)
    return _by_handle(items, results), soonest, bool(rows) and rows[0].letters


async def _extend(
    database: Database, connection: Connection, queue: str, items: Sequence[AckItem]
) -> dict[Handle, AckResult]:
    rows = await database.run(
        connection,
        "extend",
        {
            "queue": queue,
            "items": Jsonb([_key(item.handle) | _extension(item) for item in items]),
        },
    )
    results = {
        (row.id, row.token): AckResult(
            AckStatus.APPLIED,
            JobState.ACTIVE,
            StopReason(row.stop_reason) if row.stop_reason is not None else None,
            row.expires_in_ms,
        )
        for row in rows
    }
    return _by_handle(items, results)


async def _why_not(
    database: Database, connection: Connection, queue: str, handles: Sequence[Handle]
) -> dict[Handle, AckResult]:
    rows = await database.run(
        connection, "why_not", {"queue": queue, "ids": arrays.uuids(handle.job_id for handle in handles)}
    )
    newest: dict[UUID, Any] = {}
    for row in rows:
        newest.setdefault(row.id, row)
    results = {}
    for handle in handles:
        row = newest.get(handle.job_id)
        if row is None:
            results[handle] = AckResult(AckStatus.NOT_FOUND)
            continue
        state = JobState(row.state)
        if state is JobState.CANCELLED:
            status = AckStatus.CANCELLED
        elif row.token == handle.token:
            status = AckStatus.ALREADY_APPLIED
        else:
            status = AckStatus.LEASE_LOST
        results[handle] = AckResult(status, state)
    return results


async def over(database: Database, handles: Iterable[Handle]) -> dict[Handle, bool]:
    """Those of the deliveries whose leases are over, each with whether a settling Ack is known to have ended it.

    A job remembers only the one that was settled last. Of an earlier one nothing can be told while the job runs again.
    """
    by_queue: dict[str, list[Handle]] = defaultdict(list)
    for handle in handles:
        by_queue[handle.queue].append(handle)
    found = {}
    for queue, mine in by_queue.items():
        rows = await database.once("why_not", {"queue": queue, "ids": arrays.uuids(handle.job_id for handle in mine)})
        tokens = {(row.id, row.token) for row in rows}
        running = {row.id for row in rows if row.state == JobState.ACTIVE}
        known = {row.id for row in rows}
        for handle in mine:
            settled = (handle.job_id, handle.token) in tokens
            if settled or handle.job_id in known - running:
                found[handle] = settled
    return found


def _by_handle(items: Sequence[AckItem], results: Mapping[tuple[UUID, UUID], AckResult]) -> dict[Handle, AckResult]:
    return {
        item.handle: result
        for item in items
        if (result := results.get((item.handle.job_id, item.handle.token))) is not None
    }


def _kind(item: AckItem) -> tuple[bytes, type[Complete | Fail | Extend]]:
    """By which statement an item is applied."""
    return item.handle.queue_bytes, Fail if isinstance(item.outcome, Release) else type(item.outcome)


def _key(handle: Handle) -> dict[str, Any]:
    return {"id": str(handle.job_id), "token": str(handle.token), "place": handle.place}


def _rule(item: AckItem) -> dict[str, Any]:
    outcome = item.outcome
    if isinstance(outcome, Fail):
        return {
            "how": "fail",
            "type": outcome.type,
            "message": outcome.message,
            "trace": outcome.trace,
            "permanent": outcome.permanent,
            "pause_ms": outcome.retry_ms,
        }
    assert isinstance(outcome, Release)
    return {"how": "release", "pause_ms": outcome.delay_ms}


def _extension(item: AckItem) -> dict[str, Any]:
    outcome = item.outcome
    assert isinstance(outcome, Extend)
    progress = (
        None if outcome.progress is None else {"fraction": outcome.progress.fraction, "note": outcome.progress.note}
    )
    return {"expire_ms": outcome.expire_ms, "progress": progress, "checkpoint": outcome.checkpoint}


async def end_leases(database: Database, connection: Connection, endings: Iterable[Ending]) -> dict[str, int]:
    """Gives back, within the caller's transaction, what is still validly leased.

    Returns how many jobs per queue were settled.
    """
    by_queue: dict[str, list[Ending]] = defaultdict(list)
    for ending in endings:
        by_queue[ending.handle.queue].append(ending)
    settled: dict[str, int] = {}
    for queue in sorted(by_queue):
        rows = await settle_endings(database, connection, queue, by_queue[queue])
        if rows:
            settled[queue] = len(rows)
    return settled


async def settle_endings(
    database: Database, connection: Connection, queue: str, endings: Iterable[Ending]
) -> Sequence[Row]:
    """`end_leases` for one queue; returns the rows of those whose lease was valid."""
    mine = sorted(endings, key=lambda ending: ending.handle.job_id)
    how: dict[bool, Literal["lost", "returned"]] = {True: "lost", False: "returned"}
    return await database.run(
        connection,
        "settle",
        {
            "queue": queue,
            "poison": POISON_LOSSES,
            "suspect": SUSPECT_LOSSES,
            "items": Jsonb([_key(ending.handle) | {"how": how[ending.lost]} for ending in mine]),
        },
    )


async def give_back(database: Database, endings: Sequence[Ending]) -> dict[str, int]:
    """`end_leases` in a transaction of its own."""
    return await with_partitions(database, lambda connection: end_leases(database, connection, endings))


async def sessions_of(database: Database, handles: Iterable[Handle]) -> dict[UUID, list[Handle]]:
    """The deliveries by the session they were made to; those whose claim is gone are left out."""
    by_queue: dict[str, list[Handle]] = defaultdict(list)
    for handle in handles:
        by_queue[handle.queue].append(handle)
    found: dict[UUID, list[Handle]] = defaultdict(list)
    for queue, mine in by_queue.items():
        params = {"queue": queue, "tokens": arrays.uuids(handle.token for handle in mine)}
        session_of = {row.token: row.session_id for row in await database.once("sessions_of", params)}
        for handle in mine:
            if handle.token in session_of:
                found[session_of[handle.token]].append(handle)
    return found


async def forget_claims(database: Database, tokens: Mapping[str, Sequence[UUID]]) -> None:
    """Removes claims, by queue, whose deliveries are all settled."""
    settled = sorted((queue, token) for queue, those in tokens.items() for token in those)
    params = {
        "queues": arrays.texts(queue for queue, _ in settled),
        "tokens": arrays.uuids(token for _, token in settled),
    }
    await database.once("delete_claims", params)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What a cancellation did: a status for each id, and the deliveries whose workers are to be told."""

    statuses: dict[UUID, CancelStatus]
    stops: list[Stop]


async def cancel(database: Database, queue: str, ids: Sequence[UUID], cancel_grace_ms: int) -> Cancellation:
    """`cancel_within` in a transaction of its own, of any ids."""
    return await with_partitions(
        database, lambda connection: cancel_within(database, connection, queue, sorted(set(ids)), cancel_grace_ms)
    )


async def cancel_within(
    database: Database, connection: Connection, queue: str, ids: Sequence[UUID], cancel_grace_ms: int
) -> Cancellation:
    """Cancels waiting jobs, and marks running ones to be stopped within the grace.

    Within the caller's transaction, and of ids in ascending order.
    """
    statuses: dict[UUID, CancelStatus] = {}
    stops: list[Stop] = []
    await database.run(connection, "lock_jobs", {"queues": arrays.texts([queue]), "ids": arrays.uuids(ids)})
    # A job may move between the two steps (claimed, or given back), and is met by the next round.
    for _ in range(3):
        left = [job_id for job_id in ids if job_id not in statuses]
        if not left:
            break
        params = {"queue": queue, "ids": arrays.uuids(left)}
        for row in await database.run(connection, "cancel_waiting", params):
            statuses[row.id] = CancelStatus.CANCELLED
        for row in await database.run(connection, "cancel_active", params | {"cancel_grace_ms": cancel_grace_ms}):
            statuses[row.id] = CancelStatus.REQUESTED
            stops.append(
                Stop(
                    Handle(queue, row.id, row.token, row.place),
                    StopReason.REQUESTED,
                    row.session_id,
                    row.owner,
                    cancel_grace_ms,
                )
            )
    left = [job_id for job_id in ids if job_id not in statuses]
    if left:
        known = {
            row.id: JobState(row.state)
            for row in reversed(await database.run(connection, "why_not", {"queue": queue, "ids": arrays.uuids(left)}))
        }
        for job_id in left:
            state = known.get(job_id)
            # Live still after three rounds: it moves too fast to be met, the caller may repeat the call.
            statuses[job_id] = (
                CancelStatus.NOT_FOUND if state is None or not state.finished else CancelStatus.ALREADY_FINISHED
            )
    return Cancellation(statuses, stops)


async def give_back_claims(database: Database, queue: str, claims: Mapping[UUID, UUID]) -> int:
    """Gives back, uncounted, what these claims (token: session) took or may still take; returns how many jobs."""
    tokens = {"queue": queue, "tokens": arrays.uuids(claims)}

    async def work(connection: Connection) -> int:
        await database.run(connection, "fence_claims", tokens | {"sessions": arrays.uuids(claims.values())})
        rows = await database.run(connection, "claim_leases", tokens)
        endings = [Ending(Handle(queue, row.id, row.token, row.place), lost=False) for row in rows]
        settled = await end_leases(database, connection, endings)
        return sum(settled.values())

    return await with_partitions(database, work)
