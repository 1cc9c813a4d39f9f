"""Sessions as rows: opened, resumed, renewed, parked, ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from jobwire_server.domain.errors import SessionLost, SessionTakenOver
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.limits import SUSPECT_LOSSES
from jobwire_server.domain.shares import Share

from . import arrays, listing
from .archive import with_partitions
from .database import Connection, Database
from .settling import Ending, end_leases


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """What a session's row says besides its identity."""

    worker: str
    queues: tuple[str, ...]
    max_in_flight: int
    grace_ms: int
    shares: tuple[Share, ...] = ()


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal says of a session: its epoch here, its credits, and for how long it has had no stream."""

    epoch: int
    max_in_flight: int
    away_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Resumed:
    """A session taken over.

    Its epoch, who owned it, the leases that go on (and which of them are suspects), the handles that are lost, the
    queues to which something was given back, and whether its client is asked to leave.
    """

    epoch: int
    previous_owner: UUID
    held: dict[Handle, bool]
    lost: list[Handle]
    given_back: dict[str, int]
    quiet: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A session that was ended: who owned it, and how many jobs went back to which queue."""

    owner: UUID
    given_back: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sighting:
    """A session that nobody here serves, as a watcher sees it."""

    id: UUID
    owner: UUID
    epoch: int
    renewals: int
    grace_ms: int


async def open_session(database: Database, replica: UUID, session_id: UUID, terms: SessionTerms) -> None:
    """Stores a new session at epoch 1."""
    await database.once("open_session", {"id": session_id, "replica": replica} | _columns(terms))


async def resume_session(
    database: Database, replica: UUID, session_id: UUID, epoch: int, held: Sequence[Handle], terms: SessionTerms
) -> Resumed:
    """Takes a session over for a stream of `epoch` (0: the next one).

    Leases that are not in `held` never reached the client and are given back uncounted. Raises SessionLost, or
    SessionTakenOver if the epoch is not higher than the session's.
    """

    async def work(connection: Connection) -> Resumed:
        rows = await database.run(
            connection, "resume_session", {"id": session_id, "epoch": epoch, "replica": replica} | _columns(terms)
        )
        if not rows:
            known = await database.run(connection, "find_session", {"id": session_id})
            raise SessionTakenOver(str(session_id)) if known else SessionLost(str(session_id))
        leases = await _leases(database, connection, session_id)
        wanted = set(held)
        unknown = [handle for handle in leases if handle not in wanted]
        given_back = await end_leases(database, connection, [Ending(handle, lost=False) for handle in unknown])
        tokens = {"id": session_id, "tokens": arrays.uuids({handle.token for handle in leases if handle in wanted})}
        await database.run(connection, "delete_other_claims", tokens)
        going_on = {handle: suspect for handle, suspect in leases.items() if handle in wanted}
        return Resumed(
            rows[0].epoch,
            rows[0].previous_owner,
            going_on,
            [handle for handle in held if handle not in going_on],
            given_back,
            rows[0].quiet,
        )

    return await with_partitions(database, work)


async def check_free(database: Database, session_ids: Collection[UUID]) -> None:
    """Raises LockTimeout if somebody holds one of these sessions."""
    await database.once("lock_sessions", {"ids": arrays.uuids(session_ids)})


async def end_session(
    database: Database,
    session_id: UUID,
    *,
    epoch: int | None = None,
    renewals: int | None = None,
    received: Callable[[], frozenset[Handle]] = frozenset,
) -> Ended | None:
    """Ends a session, if its epoch and counter still are as given, and gives back what it holds.

    `received`: the deliveries whose loss counts against their jobs, asked for when the database answers; all others go
    back uncounted. None if there was nothing (any more) to end.
    """

    async def work(connection: Connection) -> Ended | None:
        rows = await database.run(
            connection, "delete_session", {"id": session_id, "epoch": epoch, "renewals": renewals}
        )
        if not rows:
            return None
        # A statement of its own: claims that committed while the row was being waited for are seen only now.
        leases = await _leases(database, connection, session_id)
        counted = received()
        endings = [Ending(handle, lost=handle in counted) for handle in leases]
        given_back = await end_leases(database, connection, endings)
        await database.run(connection, "delete_session_claims", {"id": session_id})
        return Ended(rows[0].owner, given_back)

    return await with_partitions(database, work)


async def _leases(database: Database, connection: Connection, session_id: UUID) -> dict[Handle, bool]:
    rows = await database.run(connection, "session_leases", {"id": session_id, "suspect": SUSPECT_LOSSES})
    return {Handle(row.queue, row.id, row.token, row.place): row.suspect for row in rows}


async def find_owner(database: Database, session_id: UUID) -> UUID | None:
    """Who owns a session; None if it is over."""
    rows = await database.once("find_session", {"id": session_id})
    return rows[0].owner if rows else None


async def renew(
    database: Database, connection: Connection, replica: UUID, renewals: Mapping[UUID, Renewal]
) -> dict[UUID, bool]:
    """Raises the counters of sessions of the given epochs.

    Returns those that still are this replica's, and for each whether its client is asked to leave.
    """
    said = renewals.values()
    params = {
        "replica": replica,
        "ids": arrays.uuids(renewals),
        "epochs": arrays.int8s(renewal.epoch for renewal in said),
        "credits": arrays.int4s(renewal.max_in_flight for renewal in said),
        "aways": arrays.int8s(-1 if renewal.away_ms is None else renewal.away_ms for renewal in said),
    }
    return {row.id: row.quiet for row in await database.run(connection, "renew_sessions", params)}


async def park(database: Database, replica: UUID, grace_ms: int) -> None:
    """Gives all sessions of this replica a grace for the time without it."""
    await database.once("park_sessions", {"replica": replica, "grace_ms": grace_ms})


async def sight(database: Database, connection: Connection, replica: UUID, known: Collection[UUID]) -> list[Sighting]:
    """The sessions of other replicas, and those of this one that are not `known` to it."""
    rows = await database.run(connection, "foreign_sessions", {"replica": replica, "known": arrays.uuids(known)})
    return [Sighting(row.id, row.owner, row.epoch, row.renewals, row.grace_ms) for row in rows]


def _columns(terms: SessionTerms) -> dict[str, object]:
    return {
        "worker": terms.worker,
        "queues": arrays.texts(terms.queues),
        "max_in_flight": terms.max_in_flight,
        "grace_ms": terms.grace_ms,
        "shares": listing.shares_text(terms.shares),
    }
