"""One connection to PostgreSQL, be it direct or through a pooler.

Its settings hold for every statement, and its commits are durable whatever the role's default. On a direct connection
the session keeps the settings. Where a pooler stands between, the session may be another client's in a moment: nothing
is left in it, neither settings nor prepared statements, and each transaction begins with the settings for itself alone,
in the same round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from . import arrays
from .exchange import Call, Exchange, Row

_SETTLE = """
WITH place AS MATERIALIZED (
    -- A pooler answers a login itself, with a number of its own for the process that serves it.
    SELECT pg_backend_pid() <> %(pid)s AS pooled
), wanted AS MATERIALIZED (
    SELECT key, value FROM jsonb_each_text(%(settings)s)
    UNION ALL
    SELECT name, CASE WHEN setting IN ('off', 'local') THEN 'on' ELSE setting END
    FROM (SELECT 'synchronous_commit', current_setting('synchronous_commit')) AS durability (name, setting)
)
SELECT bool_and(p.pooled) AS pooled, count(set_config(w.key, w.value, p.pooled)) FROM place p CROSS JOIN wanted w
"""
_SET_LOCAL = "SELECT set_config(key, value, true) FROM jsonb_each_text(%s)"

_CONNECT_SECONDS = 5.0
_ALONE_SECONDS = 5.0
"""For a statement that no setting of the session bounds."""


class NoAnswer(psycopg.OperationalError):
    """Nothing came back for too long: a pooler may wait for a PostgreSQL that is away, or the connection be frozen."""


class Connection(AsyncConnection[Any]):
    """A connection in autocommit mode, on which the driver itself prepares nothing.

    `settle` comes first; after it, only `run`, `begun` and `together` begin transactions in which the settings hold.
    """

    pooled = False
    """Whether a pooler stands between, which is taken to be one in transaction mode: one cannot tell."""

    patience = 35.0
    """Seconds for an answer. PostgreSQL's own bound is shorter, but it bounds nothing if a pooler keeps a statement
    waiting, or if the connection stays open and brings nothing any more."""

    _settings: Jsonb = Jsonb({})
    _exchange: Exchange | None = None
    """None behind a pooler: nothing stays prepared there."""

    async def wait(self, *args: Any, **kwargs: Any) -> Any:
        """Waits for the database: every round trip passes here."""
        async with _within(self.patience):
            return await super().wait(*args, **kwargs)

    async def commit(self) -> None:
        """As the driver's, which would take a turn of the loop even if there is nothing to commit."""
        if self.info.transaction_status is not TransactionStatus.IDLE:
            await super().commit()

    async def settle(self, settings: Mapping[str, str]) -> None:
        """Finds out what stands between, and has `settings` hold from now on."""
        arrays.register(self)
        # What the driver prepares it may throw away later together with what others have prepared.
        self.prepare_threshold = None
        self._settings = Jsonb(settings)
        async with _within(_CONNECT_SECONDS):
            cursor = await self._apply()
            row = await cursor.fetchone()
        assert row is not None
        self.pooled = row.pooled
        self._exchange = None if self.pooled else Exchange(self)

    async def run(self, text: bytes, params: Mapping[str, Any] | None = None) -> Sequence[Row]:
        """Runs a statement, by itself or in the transaction under way, and returns its rows, if it has any."""
        [rows] = await self.together((text, params or {}))
        return rows

    async def together(self, *calls: Call) -> list[Sequence[Row]]:
        """Runs statements in one round trip, each with a snapshot of its own, and returns the rows of each.

        If no transaction is under way, they are one.
        """
        # What is sent up to one Sync is one transaction, which needs no BEGIN and no COMMIT.
        if self._exchange is not None:
            async with self.lock:
                rows: list[Sequence[Row]] = await self.wait(self._exchange.run(calls))
                return rows
        alone = self.info.transaction_status is TransactionStatus.IDLE
        async with self.pipeline():
            if alone:
                await self._apply()
            cursors = [await self.execute(text, params, binary=True) for text, params in calls]
        return [await cursor.fetchall() if cursor.description is not None else [] for cursor in cursors]

    @contextlib.asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        """A transaction."""
        if not self.pooled:
            async with self.transaction() as transaction:
                yield
            # The driver ends without a word on a connection that it knows to be broken.
            if transaction.status is not transaction.Status.COMMITTED:
                raise psycopg.OperationalError("the connection broke before the commit")
            return
        # As `transaction`, which would need a round trip more before the settings.
        try:
            async with self.pipeline():
                await self.execute("BEGIN")
                await self._apply()
            yield
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                await self.execute("ROLLBACK")
            raise
        await self.execute("COMMIT")

    async def set_local(self, settings: Mapping[str, str]) -> None:
        """Has other settings hold until the end of the transaction under way."""
        await self.execute(_SET_LOCAL, [Jsonb(settings)])

    async def alone(self, text: bytes) -> None:
        """Runs a statement that cannot be part of a transaction.

        Through a pooler no setting can bound it, so it is cancelled after a while, with TimeoutError.
        """
        async with asyncio.timeout(_ALONE_SECONDS if self.pooled else None):
            await self.execute(text)

    async def _apply(self) -> psycopg.AsyncCursor[Any]:
        params = {"pid": self.info.backend_pid, "settings": self._settings}
        return await self.execute(_SETTLE, params)


@contextlib.asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise NoAnswer(f"no answer within {seconds} s") from error
