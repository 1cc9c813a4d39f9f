"""A transaction that is left open while jobs run: `python -m bench.speed.pinned`, `… --minutes 10`.

The load is half of what this machine can take, found out first. An open REPEATABLE READ transaction in the same
database keeps vacuum from removing any row that dies meanwhile, so dead rows and dead index entries pile up. Shown are
the throughput before and during, what a job costs then, and what has piled up.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import psycopg

from bench.arena import Arena, arena
from bench.speed.drive import Form, end_to_end, last_tick, publishing, working
from bench.speed.finding import Finding, command, database, progress
from bench.speed.meter import Meter, postmaster
from jobwire_server.cli.children import Child

_WARM_SECONDS = 10.0


async def pinned(
    dsn: str, *, minutes: float = 1.0, before_seconds: float = 30.0, batch: int = 100, jobs: int = 30_000
) -> Sequence[Finding]:
    """Steady load, `before_seconds` without the open transaction, then `minutes` with it, then again without."""
    form = Form(batch=batch)
    with database(dsn) as mine:
        async with arena(mine) as place:
            saturation = statistics.median([await end_to_end(place, form, jobs) for _ in range(3)])
            rate = int(saturation / 2)
            progress(f"pinned: saturated at {saturation:,.0f} jobs/s; the load is {rate:,} jobs/s")
            async with working(place, form) as worker, publishing(place, form, rate=rate):
                watch = _Watch(place, worker)
                await asyncio.sleep(_WARM_SECONDS)
                await watch.phase("before", before_seconds)
                async with _open_transaction(place):
                    parts = max(1, round(minutes))
                    for part in range(parts):
                        await watch.phase(f"pinned, part {part + 1} of {parts}", minutes * 60 / parts)
                await watch.phase("after", before_seconds)
    before, *during, _ = watch.rates
    note = f"{rate:,} jobs/s published by {batch}, half of saturation; the transaction is open for {minutes:g} min"
    return [
        Finding(
            "pinned xmin, throughput during against before",
            [rate_then / before for rate_then in during],
            bound=0.9,
            note=note,
            facts=watch.facts,
        )
    ]


class _Watch:
    """Looks at the load, phase by phase."""

    def __init__(self, place: Arena, worker: Child) -> None:
        self._place = place
        self._worker = worker
        self._meter = Meter({"server": [place.server.pid], "PostgreSQL": [postmaster(place.dsn)]})
        self.rates: list[float] = []
        self.facts: dict[str, str] = {}

    async def phase(self, name: str, seconds: float) -> None:
        """Watches for so long."""
        began = last_tick([self._worker])
        with self._meter:
            await asyncio.sleep(seconds)
        ended = last_tick([self._worker])
        jobs = max(1, ended.jobs - began.jobs)
        self.rates.append(ended.rate_since(began))
        cost = ", ".join(f"{who} {used / jobs * 1e5:.1f}" for who, used in self._meter.cpu.items())
        dead = ", ".join(f"{name} {rows:,} dead in {size:.0f} MiB" for name, (rows, size) in self._tables().items())
        self.facts[name] = f"{self.rates[-1]:,.0f} jobs/s; CPU seconds for 100,000 jobs: {cost}; at its end {dead}"
        progress(f"pinned: {name}: {self.facts[name]}")

    def _tables(self) -> Mapping[str, tuple[int, float]]:
        return {name: (int(rows), float(size)) for name, rows, size in self._place.query(_TABLES)}


_TABLES = """
SELECT relname, n_dead_tup, pg_total_relation_size(relid) / 1048576.0 FROM pg_stat_user_tables
WHERE schemaname = trim('"' FROM '{}') AND relname IN ('live_job', 'ready', 'claim') ORDER BY relname
"""


@asynccontextmanager
async def _open_transaction(place: Arena) -> AsyncIterator[None]:
    async with await psycopg.AsyncConnection.connect(place.dsn) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # The horizon stays where this first look was.
        await connection.execute("SELECT count(*) FROM pg_class")
        yield
        await connection.rollback()


if __name__ == "__main__":
    command(pinned, __doc__)
