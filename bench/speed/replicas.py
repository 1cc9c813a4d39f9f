"""Two servers on one database against one: `python -m bench.speed.replicas`.

The same two producers and two workers, on one server or a pair on each of two. On one machine that cannot be faster;
what counts is what a job costs PostgreSQL, since that is what servers share: its CPU time and its statements. Two
servers that share a load form smaller groups, whatever they do; so they are also compared with one server that has half
of it, a single pair, as each of them has. And how many connections a server takes while many workers are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import psycopg

from bench.arena import Arena, arena
from bench.speed.drive import Form, Tick, last_tick, publishing, working
from bench.speed.finding import Finding, command, database, progress
from bench.speed.meter import Ledger, Meter, postmaster
from jobwire_server.cli.children import Child

_SHAPES = {"by 100": Form(batch=100, tasks=4), "singly": Form(batch=1, tasks=16)}
_PAIRS = 2
_CONNECTIONS = 5
_WARMING = 0.25
"""So many of the jobs go first, uncounted: a server that has just begun opens its connections and plans on them."""
_PATIENCE = 300.0


@dataclass(frozen=True)
class Cost:
    """Of one run: PostgreSQL's CPU in microseconds and its statements, both for each job, and the jobs a second."""

    cpu: float
    statements: float
    rate: float

    def __str__(self) -> str:
        return f"{self.cpu:.0f} µs and {self.statements:.4f} statements a job, {self.rate:,.0f} jobs/s"


async def replicas(
    dsn: str, *, rounds: int = 3, jobs: int = 100_000, singles: int = 10_000, workers: int = 50
) -> Sequence[Finding]:
    """All in turn, `rounds` times, `jobs` by 100 and `singles` one by one; then `workers` on one server."""
    costs: dict[str, list[tuple[Cost, Cost, Cost]]] = {shape: [] for shape in _SHAPES}
    with database(dsn) as mine:
        async with arena(mine) as first:
            for _ in range(rounds):
                for shape, form in _SHAPES.items():
                    count = jobs if form.batch > 1 else singles
                    half = await _run([first], form, count // _PAIRS)
                    alone = await _run([first] * _PAIRS, form, count)
                    async with first.replica() as second:
                        both = await _run([first, second], form, count)
                    costs[shape].append((half, alone, both))
                    progress(f"replicas, {shape}: one with a pair {half}; one with both {alone}; two {both}")
            connections = await _connections(first, workers)
    return [
        *(finding for shape, pairs in costs.items() for finding in _findings(shape, pairs)),
        Finding(
            "connections of a server",
            [connections],
            bound=_CONNECTIONS,
            at_least=False,
            note=f"the most seen while {workers} workers were given jobs",
        ),
    ]


def _findings(shape: str, costs: Sequence[tuple[Cost, Cost, Cost]]) -> Sequence[Finding]:
    def told(field: str, form: str) -> str:
        return "; ".join(", ".join(format(getattr(cost, field), form) for cost in three) for three in costs)

    rates = {"jobs/s": told("rate", ",.0f")}
    order = "one server with a single pair, one with both, two with a pair each"
    return [
        Finding(
            f"replicas, {what} for a job {shape}, {against}",
            [getattr(two, field) / getattr(one[place], field) for *one, two in costs],
            bound=1.1,
            at_least=False,
            note=f"{_PAIRS} producers and {_PAIRS} workers on two servers; the figures are of {order}",
            facts=rates | {f"{unit} for a job": told(field, form)} if place else {},
        )
        for place, against in ((1, "same load"), (0, "half the load"))
        for field, what, unit, form in (
            ("cpu", "PostgreSQL's CPU", "µs", ",.0f"),
            ("statements", "statements", "statements", ".4f"),
        )
    ]


async def _run(places: Sequence[Arena], form: Form, jobs: int) -> Cost:
    """Has a producer and a worker at each place do their part of the jobs."""
    dsn = places[0].dsn
    jobs, warming = _whole(jobs, places, form), _whole(int(jobs * _WARMING), places, form)
    meter, ledger = Meter({"PostgreSQL": [postmaster(dsn)]}), Ledger(dsn)
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(working(place, form)) for place in places]
        await _until_done(places, workers, form, warming)
        # Else autovacuum would do it, for all runs before, in the midst of one of them.
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("VACUUM")
        began = last_tick(workers)
        with meter, ledger:
            ended = await _until_done(places, workers, form, jobs)
    return Cost(meter.cpu["PostgreSQL"] / jobs * 1e6, ledger.statements / jobs, ended.rate_since(began))


def _whole(jobs: int, places: Sequence[Arena], form: Form) -> int:
    """As many jobs as make whole calls, as many at each place; at least one."""
    each = len(places) * form.batch
    return max(1, jobs // each) * each


async def _until_done(places: Sequence[Arena], workers: Sequence[Child], form: Form, jobs: int) -> Tick:
    """Publishes so many jobs and waits until they are recorded."""
    before = last_tick(workers)
    async with AsyncExitStack() as stack:
        for place in places:
            await stack.enter_async_context(publishing(place, form, jobs // len(places)))
        async with asyncio.timeout(_PATIENCE):
            while (tick := last_tick(workers)).jobs - before.jobs < jobs:  # noqa: ASYNC110  (another process counts)
                await asyncio.sleep(0.1)
    return tick


async def _connections(place: Arena, workers: int) -> int:
    """The most connections that a server has while so many workers are at work."""
    form, seen = Form(streams=workers, in_flight=10), 0
    async with working(place, form), publishing(place, form):
        for _ in range(30):
            await asyncio.sleep(0.1)
            [(count,)] = place.query(_CONNECTED)
            seen = max(seen, int(count))
    return seen


_CONNECTED = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobwire' AND datname = current_database()
"""


if __name__ == "__main__":
    command(replicas, __doc__)
