"""Many queues and streams against one of each: `python -m bench.speed.width`.

The same lean clients publish and complete the same jobs on one server, in turn: to one queue, worked on by one stream;
and to 1,000 queues, worked on by 500 streams (each a connection and a session for two queues). Then nothing happens:
what a stream holds, and what the server asks of PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from bench.arena import Arena, arena
from bench.speed.drive import Form, end_to_end, working
from bench.speed.finding import Finding, command, progress
from bench.speed.meter import Ledger, Meter

_SHAPES = {"by 100": Form(batch=100, tasks=4), "singly": Form(batch=1, tasks=16)}
_STATEMENTS_A_SECOND = 5.0


async def width(
    dsn: str,
    *,
    rounds: int = 3,
    queues: int = 1_000,
    streams: int = 500,
    jobs: int = 30_000,
    singles: int = 3_000,
    idle_seconds: float = 20.0,
) -> Sequence[Finding]:
    """Both forms in turn, `rounds` times, `jobs` by 100 and `singles` one by one; then idle."""
    rates: dict[str, list[tuple[float, float]]] = {shape: [] for shape in _SHAPES}
    async with arena(dsn) as place:
        for _ in range(rounds):
            for shape, narrow in _SHAPES.items():
                count = jobs if narrow.batch > 1 else singles
                wide = replace(narrow, queues=queues, streams=streams)
                pair = (await end_to_end(place, narrow, count), await end_to_end(place, wide, count))
                rates[shape].append(pair)
                progress(f"width, {shape}: {pair[0]:,.0f} jobs/s narrow, {pair[1]:,.0f} wide")
    findings = [
        Finding(
            f"width, end to end {shape}",
            [wide / narrow for narrow, wide in pairs],
            bound=0.5,
            note=f"{queues:,} queues and {streams} streams against one of each; the aim is 0.8",
            facts={
                "one queue, one stream": ", ".join(f"{narrow:,.0f}" for narrow, _ in pairs) + " jobs/s",
                "wide": ", ".join(f"{wide:,.0f}" for _, wide in pairs) + " jobs/s",
            },
        )
        for shape, pairs in rates.items()
    ]
    async with arena(dsn) as place:
        return [*findings, await _idle(place, Form(queues=queues, streams=streams), idle_seconds)]


async def _idle(place: Arena, form: Form, seconds: float) -> Finding:
    meter, ledger = Meter({"server": [place.server.pid]}), Ledger(place.dsn)
    with meter:
        await asyncio.sleep(1.0)
    alone = meter.memory["server"]
    async with working(place, form):
        await asyncio.sleep(2.0)
        with meter, ledger:
            await asyncio.sleep(seconds)
    statements = ledger.statements / meter.seconds
    return Finding(
        "width, statements a second while idle",
        [statements],
        bound=_STATEMENTS_A_SECOND,
        at_least=False,
        note=f"{form.queues:,} queues, {form.streams} idle streams, their heartbeats answered",
        facts={
            "counted": "statements" if ledger.counts_statements else "transactions",
            "memory of an idle stream": f"{(meter.memory['server'] - alone) * 1024 / form.streams:.0f} KiB",
            "memory of the server": f"{alone:.0f} MiB alone, {meter.memory['server']:.0f} MiB with them",
            "CPU of the server": f"{meter.cpu['server'] / meter.seconds * 100:.1f} % of a core",
        },
    )


if __name__ == "__main__":
    command(width, __doc__)
