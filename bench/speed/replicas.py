"""Two servers on one database against one: `python -m bench.speed.replicas`.

The same two producers and two workers, on one server or a pair on each of two. On one machine that cannot be faster;
what counts is what a job costs PostgreSQL, since that is what servers share: its CPU time and its statements. And how
many connections a server takes while many workers are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from bench.arena import Arena, arena
from bench.speed.drive import Form, last_tick, publishing, working
from bench.speed.finding import Finding, command, database, progress
from bench.speed.meter import Ledger, Meter, postmaster

_SHAPES = {"by 100": Form(batch=100, tasks=4), "singly": Form(batch=1, tasks=16)}
_PAIRS = 2
_CONNECTIONS = 5
_PATIENCE = 300.0


@dataclass(frozen=True)
class Cost:
    """Of one run: PostgreSQL's CPU in microseconds and its statements, both for each job, and the jobs a second."""

    cpu: float
    statements: float
    rate: float


async def replicas(
    dsn: str, *, rounds: int = 3, jobs: int = 40_000, singles: int = 4_000, workers: int = 50
) -> Sequence[Finding]:
    """Both in turn, `rounds` times, `jobs` by 100 and `singles` one by one; then `workers` on one server."""
    costs: dict[str, list[tuple[Cost, Cost]]] = {shape: [] for shape in _SHAPES}
    with database(dsn) as mine:
        async with arena(mine) as first:
            for _ in range(rounds):
                for shape, form in _SHAPES.items():
                    count = jobs if form.batch > 1 else singles
                    alone = await _run([first] * _PAIRS, form, count)
                    async with first.replica() as second:
                        both = await _run([first, second], form, count)
                    costs[shape].append((alone, both))
                    progress(f"replicas, {shape}: one {alone}, two {both}")
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


def _findings(shape: str, pairs: Sequence[tuple[Cost, Cost]]) -> Sequence[Finding]:
    facts = {"jobs/s, one and two": "; ".join(f"{one.rate:,.0f} and {two.rate:,.0f}" for one, two in pairs)}
    note = f"{_PAIRS} producers and {_PAIRS} workers, on two servers against one"
    cpu = "; ".join(f"{one.cpu:,.0f} and {two.cpu:,.0f}" for one, two in pairs)
    counted = "; ".join(f"{one.statements:.3f} and {two.statements:.3f}" for one, two in pairs)
    return [
        Finding(
            f"replicas, PostgreSQL's CPU for a job {shape}",
            [two.cpu / one.cpu for one, two in pairs],
            bound=1.1,
            at_least=False,
            note=note,
            facts=facts | {"µs for a job, one and two": cpu},
        ),
        Finding(
            f"replicas, statements for a job {shape}",
            [two.statements / one.statements for one, two in pairs],
            bound=1.1,
            at_least=False,
            note=note,
            facts={"one and two": counted},
        ),
    ]


async def _run(places: Sequence[Arena], form: Form, jobs: int) -> Cost:
    """Has a producer and a worker at each place do their part of the jobs."""
    dsn = places[0].dsn
    meter, ledger = Meter({"PostgreSQL": [postmaster(dsn)]}), Ledger(dsn)
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(working(place, form)) for place in places]
        began = last_tick(workers)
        with meter, ledger:
            for place in places:
                await stack.enter_async_context(publishing(place, form, jobs // len(places)))
            async with asyncio.timeout(_PATIENCE):
                while (ended := last_tick(workers)).jobs - began.jobs < jobs:  # noqa: ASYNC110  (another process counts)
                    await asyncio.sleep(0.1)
    return Cost(meter.cpu["PostgreSQL"] / jobs * 1e6, ledger.statements / jobs, ended.rate_since(began))


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
