"""Drives pgmq's SQL, which the `pgmq` package carries: what bare messages cost, without retries, priorities or limits.

pgmq has no worker, so it is a loop of read and delete. At `defaults` it takes one message at a time, at `best` 3,000,
in two loops. It polls in the server, each 100 ms; at `best` each 10 ms where latency is measured.
"""

from __future__ import annotations

import asyncio

import asyncpg
import uvloop
from pgmq.install import get_embedded_install_sql

from bench.speed.peers.protocol import Handle, at_best, scenario, serve, target

QUEUE = "bench"
PUBLISHING_CONNECTIONS = 16
MESSAGES, LOOPS = (3_000, 2) if at_best() else (1, 1)
POLL_MS = 10 if at_best() and scenario() == "latency" else 100
LEASE_SECONDS = 30


class _Pgmq:
    """See `protocol.Peer`."""

    def __init__(self, lookup: asyncpg.Connection) -> None:
        self._lookup = lookup
        self._publisher: asyncpg.Pool | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False

    async def setup(self) -> None:
        await self._lookup.execute(get_embedded_install_sql())
        await self._lookup.execute("SELECT pgmq.create($1)", QUEUE)

    async def open_publisher(self) -> None:
        if not self._publisher:
            self._publisher = await asyncpg.create_pool(
                target(), min_size=PUBLISHING_CONNECTIONS, max_size=PUBLISHING_CONNECTIONS
            )

    async def publish(self, payloads: list[str]) -> None:
        assert self._publisher
        if len(payloads) == 1:
            await self._publisher.fetchval("SELECT pgmq.send($1, $2::jsonb)", QUEUE, payloads[0])
        else:
            await self._publisher.fetch("SELECT pgmq.send_batch($1, $2::jsonb[])", QUEUE, payloads)

    async def start_worker(self, handle: Handle) -> None:
        self._stopping = False
        connections = [await asyncpg.connect(target()) for _ in range(LOOPS)]
        self._loops = [asyncio.create_task(self._work(connection, handle)) for connection in connections]

    async def _work(self, connection: asyncpg.Connection, handle: Handle) -> None:
        read = await connection.prepare("SELECT msg_id, message FROM pgmq.read_with_poll($1, $2, $3, 1, $4)")
        delete = await connection.prepare("SELECT pgmq.delete($1, $2::bigint[])")
        while not self._stopping:
            messages = await read.fetch(QUEUE, LEASE_SECONDS, MESSAGES, POLL_MS)
            for message in messages:
                handle(message["message"])
            if messages:
                await delete.fetch(QUEUE, [message["msg_id"] for message in messages])
        await connection.close()

    async def stop_worker(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._loops)

    async def remaining(self) -> int:
        return int(await self._lookup.fetchval("SELECT count(*) FROM pgmq.q_bench"))

    async def close(self) -> None:
        if self._publisher:
            await self._publisher.close()
        await self._lookup.close()


async def main() -> None:
    await serve(_Pgmq(await asyncpg.connect(target())))


if __name__ == "__main__":
    uvloop.run(main())
