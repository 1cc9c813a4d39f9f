"""Servers for the whole run, and the scenarios of one driver after the other."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import psycopg
import pytest

from tests.conformance.clients import CLIENTS
from tests.conformance.playing import Playing
from tests.conformance.servers import Servers
from tests.conftest import Postgres


@pytest.fixture(scope="session")
async def servers(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Servers]:
    schema = f"test_{secrets.token_hex(5)}"
    async with Servers(postgres.dsn, schema, tmp_path_factory.mktemp("servers")) as servers:
        yield servers
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'.encode())


@pytest.fixture(scope="module")
async def playing(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Playing]:
    """The scenarios that were asked for, of the driver that the tests name."""
    client = CLIENTS[request.param]
    if client.missing:
        pytest.skip(client.missing)
    names = [
        item.callspec.params["scenario"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.path == request.path
        and item.callspec.params["playing"] == request.param
    ]
    async with Playing(client, names, servers, tmp_path_factory.mktemp(client.name)) as playing:
        yield playing
