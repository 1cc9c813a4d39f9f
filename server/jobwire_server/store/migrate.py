"""Brings a schema to this version's state.

Numbered files, forward only, all in one transaction under a transaction-scoped lock.

Any number of processes may do it at once, on an empty database too: one works, the others wait and find nothing to do.
No statement fails on the way, so the database's log stays clean.
"""

from __future__ import annotations

from dataclasses import dataclass

from .database import Connection, Database, translated
from .statements import in_schema, load_migrations, quoted

_TABLE = """
CREATE TABLE IF NOT EXISTS jobwire.migration (
    number int PRIMARY KEY,
    name text NOT NULL,
    -- The oldest server, by the number of the last migration it knows, that may go on beside this one.
    serves_from int NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
# Read from the catalog's tables: `to_regclass` answers from a cache that does not see what was committed during the
# wait for the lock.
_EXISTS = """
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = 'migration') AS found
"""
_NOTE = "INSERT INTO jobwire.migration (number, name, serves_from) VALUES (%s, %s, %s)"
_LAST = "SELECT coalesce(max(number), 0) AS number, coalesce(max(serves_from), 0) AS serves_from FROM jobwire.migration"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What a schema has, and what this version would add.

    `unknown` is set if the schema is newer than this version can serve.
    """

    applied: int
    pending: tuple[str, ...]
    unknown: bool


async def check(database: Database) -> SchemaState:
    """Looks, and changes nothing."""
    connection = await database.connect_alone()
    with translated():
        async with connection:
            return await _state(connection, database.schema)


async def migrate(database: Database) -> tuple[str, ...]:
    """Applies what is missing; returns the names of the migrations applied."""
    connection = await database.connect_alone()
    with translated():
        async with connection:
            if not (await _state(connection, database.schema)).pending:
                return ()
            async with connection.begun():
                return await _migrate(connection, database.schema)


async def _migrate(connection: Connection, schema: str) -> tuple[str, ...]:
    await connection.execute("SET LOCAL client_min_messages = warning")
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('jobwire migration ' || %s, 0))", [schema])
    state = await _state(connection, schema)
    if state.applied == 0 and state.pending:
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}".encode())
        await connection.execute(in_schema(_TABLE, schema).encode())
    for number, name, text in load_migrations(schema):
        if name in state.pending:
            await connection.execute(text)
            # Every migration so far leaves older servers at work.
            await connection.execute(in_schema(_NOTE, schema).encode(), [number, name, 1])
    return state.pending


async def _state(connection: Connection, schema: str) -> SchemaState:
    known = load_migrations(schema)
    exists = await (await connection.execute(_EXISTS, [schema])).fetchone()
    applied, serves_from = 0, 0
    if exists is not None and exists.found:
        row = await (await connection.execute(in_schema(_LAST, schema).encode())).fetchone()
        assert row is not None
        applied, serves_from = row.number, row.serves_from
    return SchemaState(
        applied, tuple(name for number, name, _ in known if number > applied), serves_from > known[-1][0]
    )
