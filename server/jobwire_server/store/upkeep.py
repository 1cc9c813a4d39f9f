"""What time brings about: jobs that become due, time limits, restores. Any replica may do it; several do not disturb each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from ..domain.handles import Handle
from ..domain.jobs import StopReason
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
    """What a look at the time limits brought: deliveries to be told to stop, queues to which something went back, and whether more are due."""

    stops: list[Stop] = field(default_factory=list)
    settled: dict[str, int] = field(default_factory=dict)
    more: bool = False


async def check_limits(database: Database, cancel_grace_ms: int, at_once: int = 100) -> Checked:
    """Tells deliveries past their limit to stop, and settles those whose stop grace is over, for up to `at_once` claims."""

    async def work(connection: Connection) -> Checked:
        stops: list[Stop] = []
        over: list[Ending] = []
        due = await database.run(connection, "due_claims", {"limit": at_once})
        for claim in sorted(due, key=lambda row: (row.queue, row.token)):
            rows = await database.run(connection, "check_claim", {"queue": claim.queue, "token": claim.token, "cancel_grace_ms": cancel_grace_ms})
            for row in rows:
                handle = Handle(claim.queue, row.id, claim.token, row.place)
                if row.over:
                    over.append(Ending(handle, lost=False))
                else:
                    stops.append(Stop(handle, StopReason.EXPIRED, row.session_id, None, cancel_grace_ms))
        return Checked(stops, await end_leases(database, connection, over), len(due) == at_once)

    return await with_partitions(database, work)


async def stopping(database: Database, connection: Connection, replica: UUID) -> list[Stop]:
    """All deliveries of this replica's sessions that are to stop."""
    rows = await database.run(connection, "stopping", {"replica": replica})
    return [Stop(Handle(row.queue, row.id, row.token, row.place), StopReason(row.stop_reason), row.session_id, replica, row.grace_ms) for row in rows]


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
