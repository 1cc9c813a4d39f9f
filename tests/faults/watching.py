"""What a test of faults does to PostgreSQL and asks of servers, past their API."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import psycopg

from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from tests.system.conftest import PATIENCE, ServerProcess


def probe(replica: ServerProcess) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{replica.http_port}/readyz", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def ready(*replicas: ServerProcess, is_ready: bool = True) -> None:
    """Returns when all replicas say that they are ready, or that they are not."""
    async with asyncio.timeout(PATIENCE):
        for replica in replicas:
            while await asyncio.to_thread(probe, replica) != (200 if is_ready else 503):
                await asyncio.sleep(0.05)


async def run(dsn: str, *statements: str) -> None:
    """Runs statements on a connection of their own."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement.encode())


@asynccontextmanager
async def transaction(dsn: str, *statements: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Somebody's transaction that has run `statements` and stays open; it is rolled back at the end."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        for statement in statements:
            await connection.execute(statement.encode())
        yield connection
        await connection.rollback()


@asynccontextmanager
async def stub(replica: ServerProcess) -> AsyncIterator[Any]:
    """The generated stub, which repeats nothing by itself."""
    async with grpc.aio.insecure_channel(replica.address) as channel:
        yield QueueServiceStub(channel)
