"""The archive's partitions, one for each day on which rows may be dropped.

Made ahead of need, removed when their day has come.

Neither blocks anybody: ATTACH and DETACH CONCURRENTLY let readers and Acks go on, and both give up after a short wait
and are tried again later.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import date
from typing import TypeVar

from psycopg import errors

from jobwire_server.domain.queues import JobOptions

from .database import Connection, Database
from .statements import quoted

T = TypeVar("T")

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('jobwire archive ' || %s, 0))"
_FAILING_DAY = re.compile(r"\(drop_on\) = \((\d{4}-\d{2}-\d{2})\)")
_MISSING_DAYS_AT_ONCE = 1_000


async def with_partitions(database: Database, work: Callable[[Connection], Awaitable[T]], *, single: bool = False) -> T:
    """Runs `work` in a transaction; if it is a `single` statement, in that statement's own.

    Should a finished job's day have no partition yet, makes it and runs `work` again.
    """
    begun = database.connection if single else database.transaction
    for _ in range(_MISSING_DAYS_AT_ONCE):
        try:
            async with begun() as connection:
                return await work(connection)
        except errors.CheckViolation as error:
            missing = _FAILING_DAY.search(error.diag.message_detail or "")
            if missing is None:
                raise
            await make_days(database, [date.fromisoformat(missing[1])])
    raise RuntimeError("one batch of outcomes needs more archive days than can be made for it")


async def make_days(database: Database, days: Iterable[date]) -> None:
    """Makes the partitions of `days` that are missing."""
    async with database.transaction() as connection:
        await connection.execute(_LOCK, [database.schema])
        have = {row.day for row in await database.run(connection, "archive_days") if row.attached}
        for day in sorted(set(days) - have):
            name = _partition(database, day)
            # A table of this name that is no partition is what a removal or a crash left; it holds nothing that is
            # still wanted.
            await connection.execute(f"DROP TABLE IF EXISTS {name}".encode())
            await connection.execute(
                f"CREATE TABLE {name} (LIKE {quoted(database.schema)}.archive INCLUDING ALL)".encode()
            )
            bounds = f"FOR VALUES FROM ('{day.isoformat()}') TO ('{date.fromordinal(day.toordinal() + 1).isoformat()}')"
            await connection.execute(
                f"ALTER TABLE {quoted(database.schema)}.archive ATTACH PARTITION {name} {bounds}".encode()
            )


async def make_days_ahead(database: Database) -> date:
    """Makes the partitions that the queues' retentions will need in the next days; returns the database's day."""
    rows = await database.once("wanted_days", {"default_ms": JobOptions().retention_ms})
    await make_days(database, (row.day for row in rows))
    today: date = rows[0].today
    return today


async def drop_past_days(database: Database, today: date) -> list[date]:
    """Removes the partitions whose day has come; returns their days. One that is in use is left for the next time.

    Claims do not name what is past any more, so that its ids can be used again.
    """
    await database.once("forget_past_members")
    dropped = []
    for row in await database.once("archive_days"):
        if row.day > today:
            continue
        name = _partition(database, row.day)
        async with database.connection() as connection:
            try:
                if row.attached:
                    how = "FINALIZE" if row.leaving else "CONCURRENTLY"
                    table = f"{quoted(database.schema)}.archive"
                    await connection.alone(f"ALTER TABLE {table} DETACH PARTITION {name} {how}".encode())
                async with connection.begun():
                    await connection.execute(f"DROP TABLE {name}".encode())
            except (
                TimeoutError,
                errors.LockNotAvailable,
                errors.UndefinedTable,
                errors.ObjectNotInPrerequisiteState,
                errors.QueryCanceled,
                errors.WrongObjectType,
            ):
                continue
        dropped.append(row.day)
    return dropped


def _partition(database: Database, day: date) -> str:
    return f'{quoted(database.schema)}."archive_{day:%Y%m%d}"'
