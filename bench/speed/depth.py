"""A claim among millions against a claim in an empty database: `python -m bench.speed.depth`, `… --full`.

Two servers on one PostgreSQL, each with a database of its own: one holds nothing but what is drained, the other has a
backlog beside it: jobs that wait, future ones and finished ones. Both are drained in turn by the same lean worker. What
claims read is counted, not timed: by PostgreSQL, of the very statements that the servers ran.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from bench.arena import Arena, arena
from bench.speed.backlog import Backlog
from bench.speed.drive import Form, drain, end_to_end
from bench.speed.finding import Finding, command, database, progress
from bench.speed.meter import Meter, postmaster
from jobwire_server.store.statements import load_statements

_FULL = {"waiting": 1_000_000, "future": 1_000_000, "finished": 5_000_000}
_VARIABLE = re.compile(r"%\(\w+\)[sbt]|\$\d+|'[^']*'|\b\d+\b|\s+")


@dataclass(frozen=True)
class Reads:
    """What was read for so many claimed jobs: pages by the claims, rows and index entries by all statements."""

    claims: int
    jobs: int
    pages: int
    rows: int


async def depth(
    dsn: str,
    *,
    full: bool = False,
    waiting: int = 200_000,
    future: int = 200_000,
    finished: int = 500_000,
    jobs: int = 20_000,
    rounds: int = 3,
) -> Sequence[Finding]:
    """Drains `jobs` from both, `rounds` times in turn. `full`: 1,000,000 wait, as many are future, 5,000,000 done."""
    sizes = _FULL if full else {"waiting": waiting, "future": future, "finished": finished}
    async with AsyncExitStack() as stack:
        shallow = await stack.enter_async_context(arena(stack.enter_context(database(dsn))))
        deep = await stack.enter_async_context(arena(stack.enter_context(database(dsn))))
        backlogs = {place.schema: Backlog(place) for place in (shallow, deep)}
        for place in (shallow, deep):
            await end_to_end(place, Form(), 1_000)  # makes the queue and what a first run makes
        progress(f"depth: filling in {sizes}")
        backlogs[deep.schema].fill(**sizes)
        before = {place.schema: _reads(place) for place in (shallow, deep)}
        rates: dict[str, list[float]] = {shallow.schema: [], deep.schema: []}
        costs: dict[str, list[float]] = {shallow.schema: [], deep.schema: []}
        for number in range(rounds):
            # In turn, and in turn first.
            for place in (shallow, deep) if number % 2 == 0 else (deep, shallow):
                backlogs[place.schema].fill(waiting=jobs)
                meter = Meter({"all": [place.server.pid, postmaster(place.dsn)]})
                with meter:
                    rates[place.schema].append(await drain(place, Form(), jobs))
                costs[place.schema].append(meter.cpu["all"] / jobs * 1e6)
                progress(f"depth: {'deep' if place is deep else 'empty'} {rates[place.schema][-1]:,.0f} jobs/s")
        for place in (shallow, deep):
            await place.server.stop()  # what its connections counted is known from then on
        pages, rows = {}, {}
        facts: dict[str, str] = {}
        for name, place in (("empty", shallow), ("deep", deep)):
            now, then = _reads(place), before[place.schema]
            claimed, claims = now.jobs - then.jobs, now.claims - then.claims
            pages[name], rows[name] = (now.pages - then.pages) / claimed, (now.rows - then.rows) / claimed
            facts[name] = (
                f"{claims:,} claims of {claimed / claims:.0f} jobs; for each job {pages[name]:.2f} pages by the claim,"
                f" {rows[name]:.2f} rows and index entries in all"
            )
    note = ", ".join(f"{number:,} {kind}" for kind, number in sizes.items())
    pairs = list(zip(rates[shallow.schema], rates[deep.schema], strict=True))
    facts["jobs/s, empty and deep"] = "; ".join(f"{one:,.0f} and {other:,.0f}" for one, other in pairs)
    facts["µs of CPU for a job, server and PostgreSQL, empty and deep"] = "; ".join(
        f"{one:.0f} and {other:.0f}" for one, other in zip(costs[shallow.schema], costs[deep.schema], strict=True)
    )
    return [
        Finding("depth, drain", [other / one for one, other in pairs], 0.9, note=note, facts=facts),
        Finding("depth, rows read for a job", [rows["deep"] / rows["empty"]], 1.05, at_least=False, note=note),
        Finding(
            "depth, pages read by the claim for a job",
            [pages["deep"] / pages["empty"]],
            1.5,
            at_least=False,
            note=f"{note}; a larger tree is a page higher, and each job is looked up in one",
        ),
    ]


def _reads(place: Arena) -> Reads:
    [(rows,)] = place.query(_ROWS)
    claim = _plain(load_statements(place.schema)["claim"].decode())
    found = [row for row in place.query(_STATEMENTS) if _plain(row[0]) == claim]
    if not found:
        raise RuntimeError("pg_stat_statements does not know the claim: it must be among shared_preload_libraries")
    claims, jobs, pages = (sum(column) for column in list(zip(*found, strict=True))[1:])
    return Reads(int(claims), int(jobs), int(pages), int(rows))


def _plain(statement: str) -> str:
    """A statement without what pg_stat_statements leaves out of it."""
    return _VARIABLE.sub(" ", statement)


_STATEMENTS = """
SELECT query, calls, rows, shared_blks_hit + shared_blks_read FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_ROWS = """
SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = trim('"' FROM '{}'))
    + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = trim('"' FROM '{}'))
"""


if __name__ == "__main__":
    command(depth, __doc__)
