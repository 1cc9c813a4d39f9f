"""Drives pgqueuer. At `defaults` as its README has it: one connection, PgQueuer.run() with its batch of 10.

At `best`: a pool, batches of 1,000. Both under uvloop, as its own command line.
"""

from __future__ import annotations

import asyncio

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from bench.speed.peers.protocol import Handle, at_best, serve, target

ENTRYPOINT = "bench"
BATCH = 1_000 if at_best() else 10
PUBLISHING_CONNECTIONS = 8
WORKING_CONNECTIONS = 5


class _PgQueuer:
    """See `protocol.Peer`."""

    def __init__(self, lookup: asyncpg.Connection) -> None:
        self._lookup = lookup
        self._publisher: Queries | None = None
        self._worker: PgQueuer | None = None
        self._running: asyncio.Task[None] | None = None

    async def setup(self) -> None:
        await Queries(AsyncpgDriver(self._lookup)).install()

    async def open_publisher(self) -> None:
        self._publisher = self._publisher or Queries(await _driver(PUBLISHING_CONNECTIONS))

    async def publish(self, payloads: list[str]) -> None:
        assert self._publisher
        if len(payloads) == 1:
            await self._publisher.enqueue(ENTRYPOINT, payloads[0].encode())
        else:
            each = len(payloads)
            await self._publisher.enqueue([ENTRYPOINT] * each, [text.encode() for text in payloads], [0] * each)

    async def start_worker(self, handle: Handle) -> None:
        self._worker = PgQueuer(await _driver(WORKING_CONNECTIONS))

        async def process(job: Job) -> None:
            handle(job.payload or b"")

        self._worker.entrypoint(ENTRYPOINT)(process)
        self._running = asyncio.create_task(self._worker.run(batch_size=BATCH))

    async def stop_worker(self) -> None:
        assert self._worker
        assert self._running
        self._worker.shutdown.set()
        await self._running

    async def remaining(self) -> int:
        return int(await self._lookup.fetchval("SELECT count(*) FROM pgqueuer"))

    async def close(self) -> None:
        await self._lookup.close()


async def _driver(connections: int) -> AsyncpgDriver | AsyncpgPoolDriver:
    if at_best():
        return AsyncpgPoolDriver(await asyncpg.create_pool(target(), min_size=connections, max_size=connections))
    return AsyncpgDriver(await asyncpg.connect(target()))


async def main() -> None:
    await serve(_PgQueuer(await asyncpg.connect(target())))


if __name__ == "__main__":
    uvloop.run(main())
