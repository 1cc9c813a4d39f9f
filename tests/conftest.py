"""A real PostgreSQL for the whole run, and a schema of its own for each test that asks.

`JOBWIRE_DATABASE_URL` or `DATABASE_URL` points the tests to another PostgreSQL; else the embedded one is started once,
in a temporary folder. `TEST_POOLER_URL` names a pooler before it, for the servers under test; what tests do themselves
goes past it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

# Before gRPC is imported: the tests start processes beside running channels, and gRPC's handlers for fork() may then
# hang the child before it becomes another program.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

import psycopg
import pytest

from jobwire_server.embedded import EmbeddedPostgres
from jobwire_server.store import archive, migrate
from jobwire_server.store.database import Database

# What scenarios assert is explained like what tests assert.
pytest.register_assert_rewrite("tests.conformance.scenarios")

LONG = os.environ.get("JOBWIRE_LONG_TESTS") == "1"
"""Whether what takes minutes is wanted too."""

long = pytest.mark.skipif(not LONG, reason="takes minutes: JOBWIRE_LONG_TESTS=1 runs it")


_LONGEST = (
    "system/test_postgres_versions",
    "chaos/test_chaos",
    "faults/test_pooler",
    "model/",
    "deploy/",
    "examples/",
    "languages/",
    "docs/test_guides",
    "system/",
    "conformance/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that of those that run beside each other none is left alone in the end."""

    def turn(item: pytest.Item) -> int:
        return next((place for place, part in enumerate(_LONGEST) if f"/tests/{part}" in str(item.path)), len(_LONGEST))

    items.sort(key=turn)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports travel between processes as UTF-8, which what a test of broken text logged may not be."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "replace").decode()) for title, text in report.sections]
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """What a client does not claim was not tried: that is no success, and nothing that one should look after."""
    if report.when == "call" and report.passed and ["conformance", "not claimed"] in map(list, report.user_properties):
        return "not claimed", "-", "NOT CLAIMED"
    return None


@dataclass(frozen=True, slots=True)
class Postgres:
    """The PostgreSQL of the run.

    `log` is its log file, if it is the embedded one; `pooler` leads to it, if there is one.
    """

    dsn: str
    log: Path | None
    pooler: str | None = None

    @property
    def served(self) -> str:
        """What a server under test is given."""
        return self.pooler or self.dsn

    def errors(self, since: int = 0) -> list[str]:
        """The lines of the log, from the byte `since` on, that tell of an error."""
        if self.log is None:
            return []
        text = self.log.read_bytes()[since:].decode(errors="replace")
        return [
            line
            for line in text.splitlines()
            if any(word in line for word in ("ERROR:", "FATAL:", "PANIC:", "deadlock"))
        ]

    def log_size(self) -> int:
        return self.log.stat().st_size if self.log is not None else 0


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    given = os.environ.get("JOBWIRE_DATABASE_URL") or os.environ.get("DATABASE_URL")
    if given:
        yield Postgres(given, None, os.environ.get("TEST_POOLER_URL"))
        return
    with (
        tempfile.TemporaryDirectory(prefix="jobwire-test-", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgres(
            Path(folder) / "pg", settings={"max_connections": "200", "deadlock_timeout": "100ms", "fsync": "off"}
        ) as embedded,
    ):
        yield Postgres(embedded.dsn, embedded.log_path)


@pytest.fixture
def direct(postgres: Postgres) -> None:
    """For a test about what only a direct connection has: notifications, and settings of the session."""
    if postgres.pooler is not None:
        pytest.skip("a pooler stands between")


@pytest.fixture
def schema(postgres: Postgres) -> Iterator[str]:
    """The name of a schema that does not exist yet; whatever is made of it is dropped after the test."""
    name = f"test_{secrets.token_hex(5)}"
    yield name
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE'.encode())


@asynccontextmanager
async def opened(dsn: str, schema: str) -> AsyncIterator[Database]:
    """A database with its schema in place."""
    async with Database(dsn, schema) as database:
        await migrate.migrate(database)
        await archive.make_days_ahead(database)
        yield database


@pytest.fixture
async def database(postgres: Postgres, schema: str) -> AsyncIterator[Database]:
    """A migrated schema of the test's own."""
    async with opened(postgres.served, schema) as database:
        yield database
