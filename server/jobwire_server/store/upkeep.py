"""What time brings about.

Jobs that become due, time limits, restores. Any replica may do it; several do not disturb each other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from jobwire_server.domain.errors import LockTimeout
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import StopReason
from jobwire_server.domain.limits import SUSPECT_LOSSES
from jobwire_server.domain.shares import Ranks

from . import arrays
from .archive import with_partitions
from .database import Connection, Database
from .settling import Ending, Stop, end_leases

_AT_ONCE = 1_000


async def promote_due(database: Database) -> dict[str, bool]:
    """Makes jobs claimable whose time has come, at most 1,000; returns their queues, and whether they go to gates."""
    return {row.queue: row.gated for row in await database.once("promote_due", {"limit": _AT_ONCE})}


class Look(NamedTuple):
    """Where to look for jobs that no signal told of."""

    queue: str
    ranks: Ranks


@dataclass(frozen=True, slots=True)
class Due:
    """What is there to be done.

    Where there are tickets, of what was asked for; milliseconds until the next scheduled job, None if there is none;
    whether a claim is due; the queues whose gates are to be looked at; milliseconds until a schedule is due, None if
    none is to be; whether dead letters are to be carried over; and the queues whose jobs may wait for so long only.
    """

    ready: Sequence[Look]
    job_in_ms: int | None
    claim: bool
    gates: Sequence[str]
    schedule_in_ms: int | None
    letters: bool
    waiting: Sequence[str]


async def next_due(database: Database, looks: Sequence[Look] = ()) -> Due:
    """What is due, and what next."""
    params = {
        "queues": arrays.texts(look.queue for look in looks),
        "lows": arrays.int4s(look.ranks.low for look in looks),
        "highs": arrays.int4s(look.ranks.high for look in looks),
    }
    [row] = await database.once("next_due", params)
    found = [looks[place - 1] for place in row.ready]
    return Due(found, row.job_in_ms, row.claim, row.gates, row.schedule_in_ms, row.letters, row.waiting)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at one claim's time limits brought.

    Deliveries to be told to stop, queues to which something went back, and the claim's token if a lock was in the way.
    """

    stops: list[Stop]
    settled: dict[str, int]
    blocked: UUID | None = None


async def check_limits(database: Database, cancel_grace_ms: int, skip: Collection[UUID] = ()) -> Checked | None:
    """Looks at the claim whose limits are due first, but for those to `skip`; None if none is due.

    Its deliveries past their time limit are told to stop, those whose stop grace is over are settled. One claim for
    each transaction: its jobs are locked in the order of their ids, those of several would not be.
    """
    due = await database.once("due_claim", {"skip": arrays.uuids(skip)})
    if not due:
        return None
    [claim] = due

    async def work(connection: Connection) -> Checked:
        rows = await database.run(
            connection, "check_claim", {"queue": claim.queue, "token": claim.token, "cancel_grace_ms": cancel_grace_ms}
        )
        stops: list[Stop] = []
        over: list[Ending] = []
        for row in rows:
            handle = Handle(claim.queue, row.id, claim.token, row.place)
            if row.over:
                over.append(Ending(handle, lost=False))
            else:
                stops.append(Stop(handle, StopReason.EXPIRED, row.session_id, None, cancel_grace_ms))
        return Checked(stops, await end_leases(database, connection, over))

    try:
        return await with_partitions(database, work)
    except LockTimeout:
        return Checked([], {}, blocked=claim.token)


async def stopping(database: Database, connection: Connection, replica: UUID) -> list[Stop]:
    """All deliveries of this replica's sessions that are to stop."""
    rows = await database.run(connection, "stopping", {"replica": replica})
    return [
        Stop(
            Handle(row.queue, row.id, row.token, row.place),
            StopReason(row.stop_reason),
            row.session_id,
            replica,
            row.grace_ms,
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Recovered:
    """What `recover` did."""

    sessions: int
    claims: int
    jobs: dict[str, int]


async def recover(database: Database) -> Recovered:
    """Voids all sessions and gives back everything active: for a database restored from a backup."""
    async with database.transaction() as connection:
        await database.run(connection, "lock_live_jobs")
        sessions = (await database.run(connection, "void_sessions"))[0].sessions
        claims = (await database.run(connection, "void_claims"))[0].claims
        jobs = {row.queue: row.jobs for row in await database.run(connection, "recover", {"suspect": SUSPECT_LOSSES})}
    return Recovered(sessions, claims, jobs)
