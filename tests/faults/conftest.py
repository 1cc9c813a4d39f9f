"""What the tests of faults share: server processes, and a PostgreSQL that they may stop, crash and fill."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobwire_server.embedded import EmbeddedPostgres
from tests.system.conftest import ServerProcess, server

from .load import Load

__all__ = ["server"]

SHORT = {"owner_grace": 5, "renew_interval": 1, "poll_interval": 0.5, "drain_linger": 0.5}
"""Graces short enough for a test, in the same order as the real ones."""

Measured = Callable[[str, float], None]
Serving = Callable[..., ServerProcess]
Loads = Callable[..., Awaitable[Load]]


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Measured:
    """Notes how long something took, in seconds; the run's summary lists it."""
    return lambda what, seconds: record_property("measured", f"{what}: {seconds:.1f} s")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Lists what was measured, by test."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(f"{report.nodeid.partition('::')[2]}: {text}")


@contextmanager
def _open_folder() -> Iterator[Path]:
    # Not below pytest's own folder, which PostgreSQL's user may not enter.
    with tempfile.TemporaryDirectory(prefix="jobwire-faults-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which PostgreSQL can have its data, whoever it runs as."""
    with _open_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def shared_own() -> Iterator[EmbeddedPostgres]:
    with (
        _open_folder() as folder,
        EmbeddedPostgres(folder / "pg", settings={"max_connections": "40"}) as postgres,
    ):
        yield postgres


@pytest.fixture
async def own(shared_own: EmbeddedPostgres) -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL for one test at a time, durable, and as it was at first when the next one gets it."""
    await asyncio.to_thread(shared_own.start)
    yield shared_own
    await asyncio.to_thread(shared_own.start)
    async with await psycopg.AsyncConnection.connect(shared_own.dsn, autocommit=True) as connection:
        await connection.execute("ALTER SYSTEM RESET ALL")
        await connection.execute("SELECT pg_reload_conf()")


@pytest.fixture
def serving(server: Serving, own: EmbeddedPostgres) -> Serving:
    """Starts replicas on the PostgreSQL of our own, with short graces."""

    def start(**settings: object) -> ServerProcess:
        return server(**{"dsn": own.dsn, **SHORT, **settings})

    return start


@pytest.fixture
async def load(own: EmbeddedPostgres, schema: str) -> AsyncIterator[Loads]:
    """Begins a load on replicas; what it has not ended itself is ended with the test."""
    async with AsyncExitStack() as stack:

        async def begin(*replicas: ServerProcess, dsn: str = own.dsn, **options: float) -> Load:
            return await stack.enter_async_context(Load(dsn, schema, replicas, **options))

        yield begin
