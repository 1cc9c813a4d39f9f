"""What the tests of networks, freezes and loads share: clients on a connection of their own, workers that misbehave,
and a look at what the database says in the end.
"""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire.v1.queue_service_pb2 import AckItem, Complete, Resume
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from tests.api.worker import Worker
from tests.chaos.proxy import Proxy
from tests.conftest import Postgres
from tests.system import conftest as system
from tests.system.conftest import WorkerProcess

server = system.server

PROGRAM = Path(__file__).parent / "support_worker.py"
PATIENCE = 60.0
COMPLETED, CANCELLED, FAILED = 4, 5, 6
"""The states of a finished job, as the archive has them."""


class Wire:
    """Stubs on a connection of their own, which nothing else in this process shares."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.queue: Any = QueueServiceStub(channel)
        self.admin: Any = AdminServiceStub(channel)


@asynccontextmanager
async def wired(address: str) -> AsyncIterator[Wire]:
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.max_send_message_length", -1),
    )
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Wire(channel)


def worker_of(wire: Wire, *, heartbeat: float = 1.0, grace: float = 2.0, **said: Any) -> Worker:
    """A worker on raw stubs; it is a context manager."""
    return Worker(
        wire,  # type: ignore[arg-type]  # it only calls the stub
        heartbeat_interval=duration(heartbeat),
        resume_grace=duration(grace),
        **said,
    )


def resumed(wire: Wire, old: Worker, epoch: int, held: list[str], **said: Any) -> Worker:
    """The session of `old` goes on."""
    return worker_of(wire, resume=Resume(session_id=old.session_id, epoch=epoch, held=held), **said)


def duration(seconds: float) -> Duration:
    span = Duration()
    span.FromMilliseconds(round(seconds * 1_000))
    return span


def done(*handles: str) -> list[AckItem]:
    return [AckItem(handle=handle, complete=Complete()) for handle in handles]


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Returns when the condition, or the awaitable that it makes, says yes; fails if it does not come to."""
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class End:
    """A job in the archive."""

    state: int
    attempt: int
    retries: int
    losses: int


@dataclass(frozen=True, slots=True)
class Books:
    """What the database says, seen past servers and proxies."""

    connection: psycopg.Connection[Any]
    schema: str

    def rows(self, statement: str, *params: Any) -> list[Any]:
        """`{}` stands for the schema."""
        cursor = self.connection.execute(statement.replace("{}", f'"{self.schema}"').encode(), params or None)
        return cursor.fetchall() if cursor.description else []

    def count(self, table: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM {{}}.{table}")[0][0])

    def ends(self) -> dict[str, End]:
        """The finished jobs; fails if one of them has finished twice, or lives on."""
        rows = self.rows("SELECT id::text, state, attempt, retry_count, loss_count FROM {}.archive")
        ends = {job: End(*rest) for job, *rest in rows}
        assert len(ends) == len(rows), "an outcome was recorded twice"
        alive = {job for (job,) in self.rows("SELECT id::text FROM {}.live_job")}
        assert not alive & ends.keys(), "a finished job lives on"
        return ends

    def one_lease_each(self) -> bool:
        """Whether no job has two valid leases."""
        return not self.rows(
            "SELECT j.id FROM {}.claim c CROSS JOIN unnest(c.ids, c.attempts) AS m (id, attempt)"
            " JOIN {}.live_job j ON j.queue = c.queue AND j.id = m.id AND j.attempt = m.attempt"
            " GROUP BY j.id HAVING count(*) > 1"
        )

    async def finished(self, count: int, seconds: float = PATIENCE) -> dict[str, End]:
        """Waits until so many jobs are finished."""
        await until(lambda: self.count("archive") >= count, seconds)
        return self.ends()


@pytest.fixture
def books(postgres: Postgres, schema: str) -> Iterator[Books]:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        yield Books(connection, schema)


@dataclass(frozen=True, slots=True)
class Line:
    """A proxy before the test's PostgreSQL."""

    proxy: Proxy
    dsn: str


@pytest.fixture
async def line(postgres: Postgres) -> AsyncIterator[Line]:
    """The network between server and database."""
    known = conninfo_to_dict(postgres.dsn)
    async with Proxy(str(known["host"]), int(known["port"] or 5432)) as proxy:
        yield Line(proxy, make_conninfo(postgres.dsn, host="127.0.0.1", hostaddr="127.0.0.1", port=proxy.port))


Misbehaving = Callable[..., WorkerProcess]


@pytest.fixture
def misbehaving(tmp_path: Path) -> Iterator[Misbehaving]:
    """Starts worker processes whose handlers do as their payload says; they are killed after the test."""
    with ExitStack() as stack:
        count = 0

        def start(target: str, *, concurrency: int = 1, heartbeat: float = 1.0, grace: float = 2.0) -> WorkerProcess:
            nonlocal count
            count += 1
            record = tmp_path / "record.txt"
            said = [target, str(record), str(concurrency), str(heartbeat), str(grace)]
            log = tmp_path / f"misbehaving-{count}.log"
            process = WorkerProcess([sys.executable, str(PROGRAM), *said], dict(os.environ), log, record=record)
            process.start()
            stack.callback(process.kill)
            return process

        yield start


def metric(http_address: str, name: str) -> float:
    """One number of a server's /metrics; to be called in a thread if the server is in this process."""
    with urllib.request.urlopen(f"http://{http_address}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(name + " ")), 0.0)
