"""The whole server in this process, and a client of the generated stubs on a real connection to it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc.aio
import psycopg
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from jobwire_server import logs
from jobwire_server.app import Server, running
from jobwire_server.settings import Settings
from tests.conftest import Postgres


class Api:
    """Stubs of all services on one channel to one server."""

    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel
        self.queue: Any = QueueServiceStub(channel)
        self.admin: Any = AdminServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)

    async def until_health(self, status: str, service: str = "") -> None:
        """Returns when a health watch says SERVING, or NOT_SERVING."""
        async with asyncio.timeout(60):
            watch = self.health.Watch(health_pb2.HealthCheckRequest(service=service))
            while health_pb2.HealthCheckResponse.ServingStatus.Name((await watch.read()).status) != status:
                pass
            watch.cancel()

    async def health_of(self, service: str = "") -> str:
        """What health says of a service: SERVING or NOT_SERVING."""
        answer = await self.health.Check(health_pb2.HealthCheckRequest(service=service))
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


@dataclass(frozen=True, slots=True)
class Eye:
    """Looks at a schema past the server."""

    connection: psycopg.Connection[Any]
    schema: str

    def run(self, statement: str) -> list[Any]:
        """Runs a statement in which `{}` stands for the schema."""
        cursor = self.connection.execute(statement.replace("{}", f'"{self.schema}"').encode())
        return cursor.fetchall() if cursor.description else []

    def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        tables = self.run(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('{}') AND relkind IN ('r', 'p')"
            " AND NOT relispartition ORDER BY relname"
        )
        counts = (f"SELECT '{name}', count(*) FROM {{}}.\"{name}\"" for (name,) in tables)
        return dict(self.run(" UNION ALL ".join(counts)))


def settings(dsn: str, schema: str, **changes: object) -> Settings:
    """Settings of a server on free ports, quick to look and quick to stop."""
    return Settings(
        **{
            "database_url": dsn,
            "schema_name": schema,
            "listen": "127.0.0.1:0",
            "http_listen": "127.0.0.1:0",
            "renew_interval": 0.2,
            "poll_interval": 0.2,
            "drain_linger": 0.0,
            **changes,
        }
    )


@asynccontextmanager
async def serving(dsn: str, schema: str, **changes: object) -> AsyncIterator[Api]:
    """A server that is ready, and a client of it."""
    async with running(settings(dsn, schema, **changes)) as server, connected(server) as api:
        await api.until_health("SERVING")
        yield api


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Api]:
    """A client of `server`."""
    # Ours may send what the server refuses for its size; and a connection that broke in one test is not for the next.
    options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(server.address, options=options) as channel:
        yield Api(server, channel)


Serve = Callable[..., AbstractAsyncContextManager[Api]]


@pytest.fixture
def serve(postgres: Postgres, schema: str) -> Serve:
    """Makes servers on the test's schema: `async with serve(max_sessions=1) as api`."""
    return partial(serving, postgres.dsn, schema)


@pytest.fixture
def eye(postgres: Postgres, schema: str) -> Iterator[Eye]:
    """Looks at the schema of the test's own servers."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        yield Eye(connection, schema)


@pytest.fixture(scope="module")
def shared_eye(postgres: Postgres) -> Iterator[Eye]:
    """Looks at the schema of the server that a module's tests share."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        eye = Eye(connection, f"test_{secrets.token_hex(5)}")
        yield eye
        eye.run("SET client_min_messages = warning")
        eye.run("DROP SCHEMA IF EXISTS {} CASCADE")


@pytest.fixture(scope="module")
async def api(postgres: Postgres, shared_eye: Eye) -> AsyncIterator[Api]:
    """A server that a module's tests share; none of them may break it."""
    async with serving(postgres.dsn, shared_eye.schema) as api:
        yield api


@pytest.fixture
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    """The log lines of our own modules, with what is bound in their context and with their tracebacks."""
    processors = (logs.add_context, structlog.processors.format_exc_info)
    with structlog.testing.capture_logs(processors=processors) as lines:
        yield lines
