"""Statements below the driver's cursors: prepared once, together one transaction, unharmed by those that fail."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from jobwire_server.domain.errors import DatabaseUnavailable
from jobwire_server.store.connection import Connection
from jobwire_server.store.database import Database


async def prepared(connection: Connection) -> int:
    cursor = await connection.execute("SELECT count(*) FROM pg_prepared_statements")
    return int((await cursor.fetchall())[0][0])


@pytest.mark.usefixtures("direct")
async def test_a_statement_is_prepared_once_for_its_types(database: Database) -> None:
    async with database.connection() as connection:
        before = await prepared(connection)
        for number in (1, 2, None, 3):
            [row] = await connection.run(b"SELECT %(n)s::int8 AS n, %(n)s::int8 + 1 AS more", {"n": number})
            assert (row.n, row.more) == (number, number and number + 1)
        assert await prepared(connection) - before <= 2


async def test_what_fails_at_its_first_use_works_at_the_next(database: Database) -> None:
    async with database.connection() as connection:
        for _ in range(2):
            with pytest.raises(psycopg.errors.DivisionByZero):
                await connection.run(b"SELECT 1 / %(n)s::int AS n", {"n": 0})
            with pytest.raises(psycopg.errors.UndefinedTable):
                await connection.run(b"SELECT FROM not_there_yet")
        await connection.run(b"CREATE TEMP TABLE not_there_yet ()")
        assert await connection.run(b"SELECT FROM not_there_yet") == []
        assert (await connection.run(b"SELECT 1 / %(n)s::int AS n", {"n": 1}))[0].n == 1


async def test_statements_together_are_done_or_not_done_together(database: Database) -> None:
    async with database.connection() as connection:
        insert = f'INSERT INTO "{database.schema}".letterbox (channel) VALUES (%(name)s::text)'.encode()
        count = f'SELECT count(*) AS n FROM "{database.schema}".letterbox'.encode()
        with pytest.raises(psycopg.errors.UniqueViolation):
            await connection.together((insert, {"name": "a"}), (insert, {"name": "a"}))
        assert [row.n for row in await connection.run(count)] == [0]
        _, rows, _ = await connection.together((insert, {"name": "a"}), (count, {}), (insert, {"name": "b"}))
        assert [row.n for row in rows] == [1]
        assert [row.n for row in await connection.run(count)] == [2]


async def test_a_statement_that_is_given_up_leaves_the_connection_of_use(database: Database) -> None:
    async with database.connection() as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await connection.run(b"SELECT pg_sleep(30)")
        assert [row.n for row in await connection.run(b"SELECT 1 AS n")] == [1]


async def test_a_transaction_whose_connection_broke_before_its_end_has_failed(database: Database) -> None:
    async def break_within() -> None:
        async with database.transaction() as connection:
            await connection.execute("SELECT 1")
            # As the driver finds it when what arrives between two statements tells of the end.
            await connection.close()

    with pytest.raises(DatabaseUnavailable):
        await break_within()
    async with database.transaction() as connection:
        await connection.execute("SELECT 1")
