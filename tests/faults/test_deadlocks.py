"""Whatever takes rows from each other, all at once on the same thousand jobs: PostgreSQL finds no deadlock."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc.aio
import psycopg
import pytest

from jobwire.v1.admin_service_pb2 import CancelJobsRequest
from jobwire.v1.queue_service_pb2 import AckItem, AckRequest, Complete, Delivery, Extend, Fail, Release
from jobwire_server.embedded import EmbeddedPostgres
from tests.api.conftest import Api, serving
from tests.api.refusals import read
from tests.api.worker import publish
from tests.conftest import LONG

from .support_net import Books, duration, until, worker_of

SCHEMA = "hunt"
JOBS = 1_000
SECONDS = 90.0 if LONG else 8.0
TRY_AGAIN = {"DATABASE_UNAVAILABLE", "LOCK_TIMEOUT", "DRAINING", "SESSION_LOST", "SESSION_TAKEN_OVER"}
TERMS: dict[str, Any] = {"retry_limit": 5, "retry_delay": duration(0), "expire_in": duration(1)}


@pytest.fixture
def own() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of the test's own, which looks for a deadlock whenever somebody has waited for a moment."""
    with tempfile.TemporaryDirectory(prefix="jobwire-hunt-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        settings = {"deadlock_timeout": "10ms", "log_lock_waits": "on", "fsync": "off"}
        with EmbeddedPostgres(Path(folder) / "pg", settings=settings) as postgres:
            yield postgres


class Hunt:
    """Two replicas that stay, one that comes and goes, and all that can be said of the same jobs at once."""

    def __init__(self, dsn: str, replicas: list[Api], ids: list[str], seed: int) -> None:
        self.dsn = dsn
        self.replicas = replicas
        self.ids = ids
        self.random = random.Random(seed)
        self.over = False
        self.said = 0

    async def allowed(self, call: Awaitable[object]) -> None:
        """Refusals that say to try again are answers too; others are not."""
        self.said += 1
        try:
            await call
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED and read(error).reason not in TRY_AGAIN:
                raise

    def items(self, deliveries: list[Delivery]) -> list[AckItem]:
        """Statements of all kinds about some of the deliveries, in no order."""
        outcomes: list[dict[str, Any]] = [
            {"complete": Complete()},
            {"fail": Fail(type="Oops", retry_in=duration(0))},
            {"release": Release(delay=duration(0))},
            {"extend": Extend(expire_in=duration(1))},
            {"extend": Extend()},
        ]
        some = self.random.sample(deliveries, min(len(deliveries), 60))
        return [AckItem(handle=one.handle, **self.random.choice(outcomes)) for one in some]

    async def work(self, api: Api) -> None:
        """Sessions that say all kinds of things through both replicas, and leave in different ways."""
        while not self.over:
            with suppress(grpc.aio.AioRpcError):  # the replica drains
                async with worker_of(api, grace=0.0, max_in_flight=300, heartbeat=5.0) as worker:
                    for _ in range(15):
                        await asyncio.sleep(self.random.uniform(0, 0.15))
                        acks = [AckRequest(items=self.items(worker.deliveries[-400:])) for _ in range(3)]
                        await asyncio.gather(
                            *(self.allowed(self.random.choice(self.replicas).queue.Ack(a)) for a in acks)
                        )
                    if self.random.random() < 0.5:
                        await self.allowed(worker.report(close_session=True))

    async def cancel(self) -> None:
        while not self.over:
            some = self.random.sample(self.ids, 20)
            api = self.random.choice(self.replicas)
            await self.allowed(api.admin.CancelJobs(CancelJobsRequest(queue="work", job_ids=some)))
            await asyncio.sleep(0.1)

    async def drain(self) -> None:
        while not self.over:
            async with serving(self.dsn, SCHEMA, cancel_grace=0.2) as api:
                work = asyncio.create_task(self.work(api))
                await asyncio.sleep(1.0)
            work.cancel()
            await asyncio.wait([work])


@pytest.fixture
async def hunt(own: EmbeddedPostgres) -> AsyncIterator[Hunt]:
    quick = {"cancel_grace": 0.2, "owner_grace": 1.0}
    async with serving(own.dsn, SCHEMA, **quick) as one, serving(own.dsn, SCHEMA, **quick) as other:
        ids = [job for api in (one, other) for job in await publish(api, JOBS // 2, options=TERMS)]
        yield Hunt(own.dsn, [one, other], ids, seed=1)


async def test_no_deadlock_whatever_is_said_of_the_same_jobs_at_once(hunt: Hunt, own: EmbeddedPostgres) -> None:
    tasks = [
        *(asyncio.create_task(hunt.work(api)) for api in hunt.replicas for _ in range(2)),
        asyncio.create_task(hunt.cancel()),
        asyncio.create_task(hunt.cancel()),
        asyncio.create_task(hunt.drain()),
    ]
    await asyncio.sleep(SECONDS)
    hunt.over = True
    await asyncio.gather(*tasks)
    async with worker_of(hunt.replicas[0], max_in_flight=1_000, heartbeat=5.0) as last:
        with psycopg.connect(own.dsn, autocommit=True) as connection:
            books = Books(connection, SCHEMA)

            async def all_done() -> bool:
                await hunt.allowed(last.complete(*last.deliveries[-1_000:]))
                return books.count("live_job") == 0

            await until(all_done)
            assert len(books.ends()) == JOBS
            assert books.count("ready") == books.count("scheduled") == 0
    log = own.log_path.read_text(errors="replace")
    assert "deadlock detected" not in log
    assert "still waiting for" in log, "there was something to wait for, or nothing was tried"
    assert hunt.said > 50
