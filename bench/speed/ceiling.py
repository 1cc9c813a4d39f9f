"""The ceiling: the cheapest plain SQL that leaves the same durable rows in the same tables as Jobwire.

Insert a live row and its ticket; claim by deleting tickets and adding a claim row for each 200 of them; finish by
moving the live rows into the archive. No leases, retries, limits, fairness or signals, and no network but PostgreSQL's.
A driver of the benchmark: `BENCH_TARGET` is the database.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import orjson
import uuid_utils.compat
from psycopg import AsyncConnection

from bench.speed.drivers.protocol import Worked, run
from jobwire_server.store import archive, arrays, migrate
from jobwire_server.store.database import Database

# Those of Jobwire's own connections: a plan made before the first ANALYZE would sort the whole backlog.
_PLANS = "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off"
_OPTIONS = f"{_PLANS} -c plan_cache_mode=force_generic_plan"
# What a claim wrote may be lost in a crash: the jobs are then ready again.
_CLAIM_OPTIONS = f"{_OPTIONS} -c synchronous_commit=off"
# When there was less than a claim could take, so that it comes to more.
_PAUSE_SECONDS = 0.005

BEST_SHAPE = "1000x2"
"""Of the shapes tried none was faster by more than the spread between runs."""

_INSERT = b"""
WITH input AS MATERIALIZED (
    SELECT i.id, i.data, nextval('jobwire.job_seq') AS seq
    FROM unnest(%(ids)b::uuid[], %(datas)b::text[]) AS i (id, data)
), stored AS (
    INSERT INTO jobwire.live_job (queue, id, seq, rank, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms,
        expire_ms, retention_ms, start_after, data)
    SELECT 'bench', id, seq, 0, 2, 1000, true, 3600000, 900000, 604800000, now(), data FROM input
)
INSERT INTO jobwire.ready (queue, rank, seq, id) SELECT 'bench', 0, seq, id FROM input
"""
# Jobwire's claim rows name 200 jobs at most, so that they fit into a page.
_CLAIM = b"""
WITH taken AS MATERIALIZED (
    DELETE FROM jobwire.ready WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM jobwire.ready WHERE queue = 'bench' AND rank = 0 AND seq > %(floor)s ORDER BY rank, seq
        LIMIT %(jobs)s FOR UPDATE SKIP LOCKED
    )) RETURNING id, seq
), recorded AS (
    INSERT INTO jobwire.claim (queue, token, session_id, epoch, worker, claimed_at, check_at, ids, attempts)
    SELECT 'bench', gen_random_uuid(), %(session)s, 1, 'ceiling', now(), now() + interval '15 minutes',
        array_agg(id), array_agg(1)
    FROM (SELECT id, row_number() OVER () - 1 AS n FROM taken) numbered GROUP BY n / 200
)
SELECT t.seq, j.data
FROM taken t
CROSS JOIN LATERAL (SELECT k.data FROM jobwire.live_job k WHERE k.queue = 'bench' AND k.id = t.id OFFSET 0) j
"""
# No join, so that no plan, made while the table was empty, can read more than the rows named.
_FINISH = b"""
WITH lease AS (
    DELETE FROM jobwire.claim WHERE session_id = %(session)s RETURNING claimed_at, ids
), gone AS (
    DELETE FROM jobwire.live_job WHERE queue = 'bench' AND id = ANY (ARRAY(SELECT unnest(ids) FROM lease)) RETURNING *
)
INSERT INTO jobwire.archive (queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit,
    retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, created_at, start_after, started_at,
    finished_at, drop_on, state, token, worker, progress_count, data)
SELECT queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit,
    retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, created_at, start_after,
    (SELECT min(claimed_at) FROM lease), now(), (SELECT jobwire.drop_day(604800000)), 4, %(session)s, 'ceiling', 0, data
FROM gone
"""


@dataclass(frozen=True)
class Shape:
    """How many jobs a claim takes, and how many loops claim and finish at once: `1000x2`."""

    batch: int
    loops: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Raises ValueError if that is no shape."""
        batch, loops = text.split("x")
        return cls(int(batch), int(loops))


class CeilingDriver:
    """Connections are kept in a stack and taken from its top, so no more are made than are used at once."""

    def __init__(self, dsn: str, stack: AsyncExitStack) -> None:
        self._dsn = dsn
        self._stack = stack
        self._free: dict[str, list[AsyncConnection[Any]]] = {_OPTIONS: [], _CLAIM_OPTIONS: []}
        self._shape = Shape.parse(os.environ.get("BENCH_CEILING") or BEST_SHAPE)

    async def setup(self) -> None:
        """Jobwire's own schema."""
        async with Database(self._dsn) as database:
            await migrate.migrate(database)
            await archive.make_days_ahead(database)

    async def store(self, payloads: Sequence[Mapping[str, Any]]) -> None:
        """One statement in a transaction of its own."""
        ids: list[UUID] = [uuid_utils.compat.uuid7() for _ in payloads]
        params = {"ids": arrays.uuids(ids), "datas": arrays.texts(orjson.dumps(each).decode() for each in payloads)}
        async with self._connection(_OPTIONS) as connection:
            await connection.execute(_INSERT, params, binary=True)

    async def work(self, jobs: int, working: Callable[[], None]) -> Worked:
        """Claims and finishes until nothing is left to do."""
        left, floor, began = jobs, 0, 0

        async def loop() -> None:
            nonlocal left, floor, began
            async with self._connection(_CLAIM_OPTIONS) as claiming, self._connection(_OPTIONS) as finishing:
                while left > 0:
                    claimed, session = time.time_ns(), uuid4()
                    params = {"session": session, "jobs": self._shape.batch, "floor": floor}
                    rows = await (await claiming.execute(_CLAIM, params, binary=True)).fetchall()
                    if not rows:
                        # What was committed late is below the floor.
                        floor = 0
                        await asyncio.sleep(_PAUSE_SECONDS)
                        continue
                    began = min(began or claimed, claimed)
                    # All that is before the last one taken, somebody has.
                    floor = max(floor, *(seq for seq, _ in rows))
                    await finishing.execute(_FINISH, {"session": session})
                    left -= len(rows)
                    if len(rows) < self._shape.batch:
                        await asyncio.sleep(_PAUSE_SECONDS)

        working()
        await asyncio.gather(*(loop() for _ in range(self._shape.loops)))
        return Worked(began, time.time_ns())

    async def latencies(self, jobs: int, every: float) -> list[int]:
        """Not measured: how soon plain SQL finds a job is how often it asks."""
        raise NotImplementedError

    @asynccontextmanager
    async def _connection(self, options: str) -> AsyncIterator[AsyncConnection[Any]]:
        free = self._free[options]
        if free:
            connection = free.pop()
        else:
            made = await AsyncConnection.connect(self._dsn, autocommit=True, prepare_threshold=0, options=options)
            connection = await self._stack.enter_async_context(made)
            arrays.register(connection)
        yield connection
        free.append(connection)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[CeilingDriver]:
    """Speaks to the database `dsn`."""
    async with AsyncExitStack() as stack:
        yield CeilingDriver(dsn, stack)


if __name__ == "__main__":
    run(connected)
