"""Connections to PostgreSQL, and the translation of its errors.

The pool grows from 1 to its limit and is the only one. Its connections have their plans pinned: a plan made before the
first ANALYZE would sort the whole backlog. A lost database surfaces as DatabaseUnavailable, never as an error of the
driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self
from uuid import UUID

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.rows import namedtuple_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from jobwire_server.domain.errors import DatabaseUnavailable, LockTimeout, TooMuchToRead

from .connection import Connection
from .exchange import Row
from .statements import load_statements, quoted

__all__ = ["Connection", "Database", "Row", "translated"]

_GONE = (
    psycopg.InterfaceError,
    PoolTimeout,
    PoolClosed,
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.ConnectionException,
    errors.TooManyConnections,
    errors.QueryCanceled,
    errors.DiskFull,
    errors.OutOfMemory,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
)
_BUSY = (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure)

_PINNED_PLANS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}
_READ_PLANS = {
    # For the parameters at hand: most conditions of a search are not given, and are no part of its plan then.
    "plan_cache_mode": "force_custom_plan",
    # What an index gives in order is not to be sorted, however few rows there seem to be.
    "enable_sort": "off",
}
_BOUNDS = {
    "statement_timeout": "30s",
    # Short: a lock that somebody holds must delay the calls that share a group with its victim but briefly.
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "60s",
    "TimeZone": "UTC",
    "DateStyle": "ISO",
}
_READ_BOUND = {"statement_timeout": "5s"}


@contextlib.contextmanager
def translated() -> Any:
    """Turns what the driver raises into our errors.

    Anything that is neither loss nor contention passes as the bug it is.
    """
    try:
        yield
    except _BUSY as error:
        raise LockTimeout from error
    except _GONE as error:
        raise DatabaseUnavailable from error
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable from error


@functools.lru_cache(maxsize=4_096)
def _queue_channel(schema: str, queue: str) -> str:
    digest = hashlib.md5(f"{quoted(schema)}.{queue}".encode(), usedforsecurity=False).hexdigest()
    return f"jobwire_{digest[:24]}"


class Database:
    """One PostgreSQL with one schema of ours.

    `dsn` is a libpq connection string or URL, `pool_size` the largest number of pooled connections (default 4).
    """

    def __init__(
        self, dsn: str, schema: str = "jobwire", pool_size: int = 4, application_name: str = "jobwire"
    ) -> None:
        self.schema = schema
        self._statements = load_statements(schema)
        self.conninfo = make_conninfo(
            dsn,
            application_name=application_name,
            connect_timeout=5,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
        )
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            self.conninfo,
            connection_class=Connection,
            min_size=1,
            max_size=pool_size,
            timeout=5.0,
            # Short, so that it gives up soon and the next call tries again: its own pauses would double up to half a
            # minute while the database is back already.
            reconnect_timeout=1.0,
            max_lifetime=3600.0,
            open=False,
            configure=self._configure,
            kwargs={"autocommit": True, "row_factory": namedtuple_row},
            name="jobwire",
        )
        self._reads = asyncio.Semaphore(1)
        self._checking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._pool.open(wait=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._checking is not None:
            self._checking.cancel()
        await self._pool.close(timeout=5.0)

    async def _configure(self, connection: Connection) -> None:
        await connection.settle(_PINNED_PLANS | _BOUNDS)

    async def connect_alone(self) -> Connection:
        """A connection outside the pool, for listening. The caller closes it."""
        with translated():
            connection = await Connection.connect(self.conninfo, autocommit=True, row_factory=namedtuple_row)
            try:
                await connection.settle({})
            except BaseException:
                await connection.close()
                raise
            return connection

    def queue_channel(self, queue: str) -> str:
        """The channel on which a queue's news travel: what the SQL function channel() computes."""
        return _queue_channel(self.schema, queue)

    def replica_channel(self, replica: UUID) -> str:
        """The channel of one replica."""
        return f"jobwire_replica_{replica.hex}"

    def statement(self, name: str) -> bytes:
        """The text of a statement in `sql/`."""
        return self._statements[name]

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A pooled connection in autocommit mode."""
        with translated():
            try:
                async with self._pool.connection() as connection:
                    yield connection
            except (psycopg.OperationalError, DatabaseUnavailable):
                self._check_pool()
                raise

    def _check_pool(self) -> None:
        """After a loss: have the pool throw away its other dead connections, rather than one per failed call."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check())

    async def _check(self) -> None:
        with contextlib.suppress(psycopg.Error, PoolTimeout, PoolClosed):
            await self._pool.check()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A pooled connection inside a transaction."""
        async with self.connection() as connection, connection.begun():
            yield connection

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A connection for an operator's reads: one at a time in all, bounded in time, each planned by itself.

        What takes longer than the bound ends with TooMuchToRead.
        """
        async with self._reads:
            try:
                async with self.transaction() as connection:
                    await connection.set_local(_READ_PLANS | _READ_BOUND)
                    yield connection
            except DatabaseUnavailable as error:
                if isinstance(error.__cause__, errors.QueryCanceled):
                    raise TooMuchToRead from error
                raise

    async def run(self, connection: Connection, name: str, params: Mapping[str, Any] | None = None) -> Sequence[Row]:
        """Runs the named statement and returns its rows, if it has any."""
        with translated():
            return await connection.run(self._statements[name], params)

    async def together(self, connection: Connection, *calls: tuple[str, Mapping[str, Any]]) -> list[Sequence[Row]]:
        """Runs named statements as one transaction in one round trip, and returns the rows of each."""
        with translated():
            return await connection.together(*((self._statements[name], params) for name, params in calls))

    async def once(self, name: str, params: Mapping[str, Any] | None = None) -> Sequence[Row]:
        """Runs the named statement by itself: one round trip, one commit."""
        async with self.connection() as connection:
            return await self.run(connection, name, params)

    def pool_stats(self) -> dict[str, int]:
        """Counters of the pool, as psycopg_pool names them."""
        return self._pool.get_stats()
