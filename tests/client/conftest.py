"""A scripted server for each test, and a worker that is put away when the test ends."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from jobwire import Client, Worker
from jobwire.job import Job
from tests.client.scripted_server import ScriptedServer


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[Client]:
    async with Client(server.address) as client:
        yield client


Working = Callable[..., AbstractAsyncContextManager[Worker]]


@pytest.fixture
def working(server: ScriptedServer) -> Working:
    """`async with working(handler, concurrency=2):` runs a worker on queue `q`, and stops it at once at the end."""

    @contextlib.asynccontextmanager
    async def run(handler: Callable[[Job], object], **registration: object) -> AsyncIterator[Worker]:
        worker = Worker(server.address, name="tester")
        worker.handler("q", **registration)(handler)  # type: ignore[arg-type]
        async with worker:
            try:
                yield worker
            finally:
                worker.stop(now=True)

    return run
