"""What time brings about.

Jobs that become due, time limits, restores. Any replica may do it; several do not disturb each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import StopReason

from .archive import with_partitions
from .database import Connection, Database
from .settling import Ending, Stop, end_leases

_AT_ONCE = 1_000


async def promote_due(database: Database) -> dict[str, int]:
    """Makes jobs claimable whose time has come, at most 1,000; returns how many per queue."""
    return {row.queue: row.jobs for row in await database.once("promote_due", {"limit": _AT_ONCE})}


async def next_due_ms(database: Database) -> int | None:
    """Milliseconds until the next scheduled job; None if there is none."""
    in_ms: int | None = (await database.once("next_due"))[0].in_ms
    return in_ms


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at one claim's time limits brought.

    Deliveries to be told to stop, and queues to which something went back.
    """

    stops: list[Stop]
    settled: dict[str, int]


async def check_limits(database: Database, cancel_grace_ms: int) -> Checked | None:
    """Looks at the claim whose limits are due first; None if none is due.

    Its deliveries past their time limit are told to stop, those whose stop grace is over are settled.

    One claim for each transaction: its jobs are locked in the order of their ids, those of several would not be.
    """

    async def work(connection: Connection) -> Checked | None:
        due = await database.run(connection, "due_claim")
        if not due:
            return None
        [claim] = due
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

    return await with_partitions(database, work)


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
        sessions = (await database.run(connection, "void_sessions"))[0].sessions
        claims = (await database.run(connection, "void_claims"))[0].claims
        jobs = {row.queue: row.jobs for row in await database.run(connection, "recover")}
    return Recovered(sessions, claims, jobs)
