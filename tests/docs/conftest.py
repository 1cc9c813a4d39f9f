"""For each page: a database with nothing in it, a server on it, and a folder to run in."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.conftest import Postgres
from tests.docs.pages import Shell, page_shell


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"test_{secrets.token_hex(5)}"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            yield make_conninfo(postgres.dsn, dbname=name)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture
async def shell(database_url: str, tmp_path: Path) -> AsyncIterator[Shell]:
    async with page_shell(database_url, tmp_path) as shell:
        yield shell
