"""A long run with workers that come, go and die, at a steady rate of publishes: `make soak`, `make soak MINUTES=5`.

Samples the server's memory, the database's connections, and each table's size and dead rows. Ends in a table and a
verdict: in the second half of the run nothing may grow beyond its bound, and every job must have come to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.arena import Arena, arena, postgres, table
from jobwire import Client, NewJob
from jobwire_server.cli.children import ChildError

_QUEUE = "soak"
_WORKERS = 4
_LIVES = (5.0, 20.0)
"""How long a worker lives, in seconds."""
_MEMORY_MIB_PER_HOUR = 30.0
_DEAD_ROWS_A_RATE = 400
"""For each job published a second: two rows die of each, and autovacuum comes once a minute."""
_LIVE_TABLES_MIB = 64.0


@dataclass(frozen=True)
class Sample:
    """One look, so many seconds after the start. Sizes in MiB; the archive, which is meant to grow, is apart."""

    seconds: float
    memory: float
    connections: int
    dead: int
    live_size: float
    archive_size: float
    waiting: int


_LOOK = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobwire'),
    coalesce(sum(n_dead_tup) FILTER (WHERE relname NOT LIKE 'archive%'), 0),
    coalesce(sum(pg_total_relation_size(relid)) FILTER (WHERE relname NOT LIKE 'archive%'), 0) / 1048576.0,
    coalesce(sum(pg_total_relation_size(relid)) FILTER (WHERE relname LIKE 'archive%'), 0) / 1048576.0,
    (SELECT count(*) FROM {}.live_job)
FROM pg_stat_user_tables WHERE schemaname = trim('"' FROM '{}')
"""


def look(place: Arena, began: float) -> Sample:
    [(connections, dead, live, archive, waiting)] = place.query(_LOOK)
    memory = place.memory()
    return Sample(time.monotonic() - began, memory, connections, int(dead), float(live), float(archive), waiting)


class Soak:
    """The run: publishing, churning and sampling at once."""

    def __init__(self, place: Arena, seconds: float, rate: int) -> None:
        self._place = place
        self.rate = rate
        self._began = time.monotonic()
        self._end = self._began + seconds
        self.samples: list[Sample] = []
        self.published = 0
        self.lives: dict[str, int] = {"SIGTERM": 0, "kill -9": 0}

    async def run(self) -> None:
        """Returns when the time is over and all that was published is finished."""
        async with asyncio.TaskGroup() as group:
            churn = [group.create_task(self._churn(random.Random(number))) for number in range(_WORKERS)]
            sampling = group.create_task(self._sample())
            await self._publish()
            await self._finished()
            for task in [sampling, *churn]:
                task.cancel()

    def _over(self) -> bool:
        return time.monotonic() >= self._end

    async def _publish(self) -> None:
        async with Client(self._place.address, timeout=60) as client:
            due = time.monotonic()
            while not self._over():
                due += 1.0
                await client.publish_many(_QUEUE, [NewJob({"n": n}) for n in range(self.rate)])
                self.published += self.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _churn(self, dice: random.Random) -> None:
        while True:
            how = dice.choice(("SIGTERM", "kill -9"))
            try:
                async with self._place.player("work", 20, _QUEUE) as worker:
                    await asyncio.sleep(dice.uniform(*_LIVES))
                    if how == "kill -9":
                        await worker.kill()
            except ChildError:
                # That was no end in order.
                if how == "SIGTERM":
                    raise
            self.lives[how] += 1

    async def _sample(self) -> None:
        while True:
            self.samples.append(await asyncio.to_thread(look, self._place, self._began))
            await asyncio.sleep(max(2.0, (self._end - self._began) / 200))

    async def _finished(self) -> None:
        async with asyncio.timeout(180):
            while self._place.query("SELECT count(*) FROM {}.live_job") != [(0,)]:  # noqa: ASYNC110  (it sends no events)
                await asyncio.sleep(0.5)


def verdict(samples: Sequence[Sample], rate: int) -> dict[str, tuple[str, bool]]:
    """What grew in the second half, and whether that is within its bound."""
    late = [sample for sample in samples if sample.seconds >= samples[-1].seconds / 2]
    slope = 3_600 * statistics.linear_regression([s.seconds for s in late], [s.memory for s in late]).slope
    # A short run cannot tell a slope from a step: what is grown in all is bounded as well.
    grown = late[-1].memory - late[0].memory
    return {
        "memory": (f"{slope:+.1f} MiB an hour", slope <= _MEMORY_MIB_PER_HOUR or grown <= 3.0),
        "connections": (f"{max(s.connections for s in late)} at most", max(s.connections for s in late) <= 5),
        "dead rows": (f"{max(s.dead for s in late):,} at most", max(s.dead for s in late) <= _DEAD_ROWS_A_RATE * rate),
        "tables but the archive": (
            f"{max(s.live_size for s in late):.1f} MiB at most",
            max(s.live_size for s in late) <= _LIVE_TABLES_MIB,
        ),
    }


def report(soak: Soak, outcomes: Sequence[Any], *, as_json: bool) -> bool:
    """Prints what was seen; returns whether it is as it should be."""
    states = dict(outcomes)
    judged = verdict(soak.samples, soak.rate) | {
        "jobs": (f"{soak.published:,} published, {states.get(4, 0):,} completed", states == {4: soak.published})
    }
    good = all(fine for _, fine in judged.values())
    if as_json:
        print(json.dumps({"samples": [asdict(s) for s in soak.samples], "lives": soak.lives, "verdict": judged}))
        return good
    shown = soak.samples[:: max(1, len(soak.samples) // 10)]
    heads = ("minute", "memory, MiB", "connections", "dead rows", "tables, MiB", "archive, MiB", "live jobs")
    rows = [
        (
            f"{s.seconds / 60:.1f}",
            f"{s.memory:.1f}",
            s.connections,
            f"{s.dead:,}",
            f"{s.live_size:.1f}",
            f"{s.archive_size:.1f}",
            s.waiting,
        )
        for s in shown
    ]
    print(table(heads, rows))
    print()
    lines = [(what, text, "ok" if fine else "FAILED") for what, (text, fine) in judged.items()]
    print(table(("second half", "seen", ""), lines))
    ended = ", ".join(f"{count} by {how}" for how, count in soak.lives.items())
    print(f"\nWorkers ended: {ended}.")
    return good


async def main(minutes: float, rate: int, *, as_json: bool) -> bool:
    with postgres() as dsn:
        async with arena(dsn) as place:
            soak = Soak(place, minutes * 60, rate)
            await soak.run()
            return report(soak, place.query("SELECT state, count(*) FROM {}.archive GROUP BY state"), as_json=as_json)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=int, default=100, help="jobs published a second")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    sys.exit(not asyncio.run(main(given.minutes, given.rate, as_json=given.json)))
