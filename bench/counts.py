"""What it takes to count the jobs of queues: `python -m bench.counts [--rows N] [--queues N] [--json]`.

So many jobs are put into a schema of their own: nine tenths ready, the rest scheduled or failed, in one large queue and
in small ones beside it. Then what GetQueue and ListQueues ask of the database is asked again and again. Printed are the
milliseconds by the clock, the middle one and the longest of all rounds, and the buffers of 8 KiB that PostgreSQL read
for it, cached or not. `DATABASE_URL` names a PostgreSQL to use; else one is embedded for the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from bench.arena import table
from jobwire_server.domain.queues import Queue
from jobwire_server.embedded import EmbeddedPostgres
from jobwire_server.store import archive, arrays, migrate, queues
from jobwire_server.store.database import Database

_SMALL_JOBS = 100
_ROUNDS = 20

_LIVE = """
WITH stored AS (
    INSERT INTO "{schema}".live_job (queue, id, seq, rank, retry_limit, retry_delay_ms, retry_backoff,
        retry_delay_max_ms, expire_ms, retention_ms, start_after, data)
    SELECT %(queue)s, gen_random_uuid(), nextval('"{schema}".job_seq'), -(n %% 5), 2, 1000, true,
        3600000, 900000, 604800000, now() + CASE WHEN n %% 20 = 0 THEN interval '1 day' ELSE interval '0' END, '1'
    FROM generate_series(1, %(jobs)s) AS n
    RETURNING queue, rank, seq, id, start_after
), ready AS (
    INSERT INTO "{schema}".ready (queue, rank, seq, id)
    SELECT queue, rank, seq, id FROM stored WHERE start_after <= now()
)
INSERT INTO "{schema}".scheduled (queue, seq, rank, id, start_after)
SELECT queue, seq, rank, id, start_after FROM stored WHERE start_after > now()
"""
_FAILED = """
INSERT INTO "{schema}".archive (queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit,
    retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, created_at, start_after, finished_at,
    drop_on, state, progress_count, data)
SELECT %(queue)s, gen_random_uuid(), nextval('"{schema}".job_seq'), 0, 1, 0, 0, 0, 2,
    1000, true, 3600000, 900000, 604800000, now(), now(), now(),
    "{schema}".drop_day(604800000), CASE WHEN n %% 2 = 0 THEN 6 ELSE 4 END, 0, '1'
FROM generate_series(1, %(jobs)s) AS n
"""


@dataclass(frozen=True)
class Row:
    """One line of the table: a question, how long its answer took, and what PostgreSQL read for it."""

    what: str
    middle_ms: float
    longest_ms: float
    buffers: int


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=200_000, help="how many jobs there are (200000)")
    parser.add_argument("--queues", type=int, default=100, help="in how many queues (100)")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    chosen = parser.parse_args()
    with _postgres() as dsn:
        rows = asyncio.run(_run(dsn, chosen.rows, chosen.queues))
    if chosen.json:
        for row in rows:
            print(json.dumps(asdict(row)))
    else:
        cells = [(row.what, f"{row.middle_ms:.1f}", f"{row.longest_ms:.1f}", f"{row.buffers:,}") for row in rows]
        print(table(("asked", "ms, middle", "ms, longest", "buffers"), cells))
    return 0


@contextmanager
def _postgres() -> Iterator[str]:
    if dsn := os.environ.get("DATABASE_URL"):
        yield dsn
        return
    with (
        tempfile.TemporaryDirectory(prefix="jobwire-bench-") as folder,
        EmbeddedPostgres(Path(folder) / "pg", settings={"fsync": "off", "max_wal_size": "4GB"}) as embedded,
    ):
        yield embedded.dsn


async def _run(dsn: str, rows: int, count: int) -> Sequence[Row]:
    schema = f"bench_{secrets.token_hex(4)}"
    try:
        async with Database(dsn, schema) as database:
            await migrate.migrate(database)
            await archive.make_days_ahead(database)
            names = [f"queue-{n}" for n in range(count)]
            for name in names:
                await queues.create_queue(database, Queue(name))
            await asyncio.to_thread(_fill, dsn, schema, names, rows)
            return [
                await _measured(database, "the large queue, as GetQueue", names[:1]),
                await _measured(database, f"{count} queues, as ListQueues", names),
            ]
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'.encode())


def _fill(dsn: str, schema: str, names: Sequence[str], rows: int) -> None:
    small = _SMALL_JOBS * (len(names) - 1)
    large = max(0, rows - small)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, jobs in [(names[0], large), *((name, _SMALL_JOBS) for name in names[1:])]:
            live = _LIVE.format(schema=schema).encode()
            connection.execute(live, {"queue": name, "jobs": jobs - jobs // 20})
            connection.execute(_FAILED.format(schema=schema).encode(), {"queue": name, "jobs": jobs // 20})
        # As autovacuum does before long, and without which index-only scans read the tables too.
        for relation in ("ready", "scheduled", "live_job", "archive"):
            connection.execute(f'VACUUM (ANALYZE) "{schema}".{relation}'.encode())


async def _measured(database: Database, what: str, names: Sequence[str]) -> Row:
    took = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        await queues.count_jobs(database, names)
        took.append((time.perf_counter() - began) * 1_000)
    return Row(what, statistics.median(took), max(took), await _buffers(database, names))


async def _buffers(database: Database, names: Sequence[str]) -> int:
    """How many blocks the same statement reads."""
    text = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + database.statement("count_jobs")
    params = {"names": arrays.texts(names), "most": queues.counted_up_to(len(names))}
    async with database.reading() as connection:
        [[[explained]]] = await (await connection.execute(text, params)).fetchall()
    plan = explained["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


if __name__ == "__main__":
    sys.exit(main())
