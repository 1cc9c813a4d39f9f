"""Many sessions on one replica, and what a replica asks of the database while nothing happens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from jobwire_server.broker.broker import Broker
from tests.broker.conftest import Worker, publish, subscription, until

SESSIONS = 300
SECONDS = 6


async def test_three_hundred_sessions_idle_and_busy(
    replica: Callable[..., Awaitable[Broker]], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await replica(poll_interval_ms=1_000, renew_interval_ms=5_000, owner_grace_ms=60_000)
    async with AsyncExitStack() as stack:
        terms = subscription("work", credits=1, heartbeat_ms=1_000)
        workers = [await stack.enter_async_context(Worker(broker, terms)) for _ in range(SESSIONS)]
        assert broker.stats().streams == SESSIONS

        statements: Counter[str] = Counter()
        execute = psycopg.AsyncCursor.execute

        async def counted(cursor: Any, query: Any, *args: Any, **said: Any) -> Any:
            statements[str(query)[:200]] += 1
            return await execute(cursor, query, *args, **said)

        with monkeypatch.context() as patched:
            patched.setattr(psycopg.AsyncCursor, "execute", counted)
            await asyncio.sleep(SECONDS)
            assert sum(statements.values()) < 5 * SECONDS, statements
        # All of them answered heartbeats meanwhile, without a statement for it.
        await until(lambda: all(worker.heartbeats for worker in workers), 60)
        assert broker.stats().sessions == SESSIONS

        ids = await publish(broker, 1_000) + await publish(broker, 1_000)

        async def complete(worker: Worker) -> None:
            done = 0
            while True:
                while done == len(worker.deliveries):
                    await asyncio.sleep(0.01)
                delivery = worker.deliveries[done]
                done += 1
                await worker.ack(delivery.handle)

        working = [asyncio.create_task(complete(worker)) for worker in workers]
        await until(lambda: broker.stats().counters.get("acked.complete", 0) == len(ids), 100)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        delivered = [delivery.handle.job_id for worker in workers for delivery in worker.deliveries]
        assert sorted(delivered) == sorted(ids)
