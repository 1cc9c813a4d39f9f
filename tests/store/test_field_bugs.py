"""What bit others and can be seen by looking at the SQL and at the schema alone: see docs/field-bugs.md."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

import jobwire_server.store
from jobwire_server.store.database import Database
from tests.conftest import Postgres

STORE = Path(jobwire_server.store.__file__).parent
CARRIED = {"data", "headers", "output", "errors", "progress", "checkpoint", "origin"}


def _texts() -> dict[str, str]:
    """All that holds SQL, without its comments."""
    files = [*STORE.rglob("*.sql"), *STORE.glob("*.py")]
    assert len(files) > 50
    return {file.name: re.sub(r"(--|#).*", "", file.read_text()) for file in files}


def test_time_is_read_when_it_is_needed() -> None:
    # These three are the time at which the transaction began, which may be long ago.
    stale = re.compile(r"\b(now\(\)|current_timestamp|transaction_timestamp)", re.IGNORECASE)
    assert [name for name, text in _texts().items() if stale.search(text)] == []


def test_advisory_locks_end_with_their_transaction() -> None:
    found = [lock for text in _texts().values() for lock in re.findall(r"pg_\w*advisory\w*", text)]
    assert found and all("xact" in lock for lock in found)


async def test_no_extension_is_needed(postgres: Postgres, database: Database) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
        cursor = await connection.execute("SELECT extname FROM pg_extension")
        assert await cursor.fetchall() == [("plpgsql",)]


async def test_no_index_holds_what_jobs_carry(postgres: Postgres, database: Database) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
        cursor = await connection.execute(
            "SELECT c.relname, m.amname, a.attname FROM pg_class c JOIN pg_am m ON m.oid = c.relam"
            " JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('i', 'I')",
            [database.schema],
        )
        rows = await cursor.fetchall()
    assert {method for _, method, _ in rows} == {"btree"}
    assert [name for name, _, column in rows if column in CARRIED] == []
