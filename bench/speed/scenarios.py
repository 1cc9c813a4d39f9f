"""What is measured, and what must hold of it.

A scenario is played by one contestant on a stage of its own, after a warm-up in the same processes, and gives figures
by metric: `rate` in jobs a second, or latencies in milliseconds at `p50` and `p99`.
"""

from __future__ import annotations

import asyncio
import math
import operator
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.speed.contest import Kind, Settings, Stage

Figures = Mapping[str, float]
Play = Callable[[Stage, int], Awaitable[Figures]]

_EVERYBODY: tuple[Kind, ...] = ("jobwire", "queue", "messages", "ceiling")
_WITH_LATENCY: tuple[Kind, ...] = ("jobwire", "queue", "messages", "echo")
_TASKS = 16
_ALONE = 4
_LATENCY_MS = 50.0
_FEW = 3
_WARM = 10
"""The warm-up has one job where the run has this many."""

_RELATIONS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "≥": operator.ge,
    "<": operator.lt,
    "≤": operator.le,
}


@dataclass(frozen=True)
class Target:
    """What a ratio has to be: Jobwire's figure, over the best among `against`, is in `relation` to `bound`.

    `against` names contestants, or everybody of a kind. `degree` is `must` or `aim`.
    """

    degree: str
    against: Sequence[str]
    relation: str
    bound: float
    metric: str = "rate"

    def holds(self, ratio: float) -> bool:
        """Whether it is met."""
        return _RELATIONS[self.relation](ratio, self.bound)


@dataclass(frozen=True)
class Scenario:
    """Something that contestants of some kinds do with so many jobs."""

    name: str
    """As drivers are told it in `BENCH_SCENARIO`."""
    title: str
    play: Play
    jobs: int
    kinds: Sequence[Kind] = _EVERYBODY
    metrics: Sequence[str] = ("rate",)
    settings: Settings = "best"
    targets: Sequence[Target] = ()


async def _publish(stage: Stage, jobs: int, batch: int) -> Figures:
    producer = await stage.driver()
    await producer.ask("setup")
    how = {"batch": batch, "tasks": _TASKS if batch == 1 else stage.contestant.bulk_tasks}
    await producer.ask("publish", jobs=max(batch, jobs // _WARM), **how)
    with stage.measured(producer=[producer]):
        published = await producer.ask("publish", jobs=jobs, **how)
    return _rate([published])


async def _alone(stage: Stage, jobs: int) -> Figures:
    producers = [await stage.driver() for _ in range(_ALONE)]
    await producers[0].ask("setup")

    async def everywhere(each: int) -> Sequence[Mapping[str, Any]]:
        return await asyncio.gather(*(one.ask("publish", jobs=each, batch=1, tasks=1) for one in producers))

    await everywhere(max(1, jobs // _WARM // _ALONE))
    with stage.measured(producer=producers):
        published = await everywhere(max(1, jobs // _ALONE))
    return _rate(published)


async def _drain(stage: Stage, jobs: int) -> Figures:
    producer, worker = await stage.driver(), await stage.driver()
    await producer.ask("setup")
    how = {"batch": 1_000, "tasks": stage.contestant.bulk_tasks}
    warm = max(1, jobs // _WARM)
    await producer.ask("publish", jobs=warm, **how)
    await worker.tell("work", jobs=warm)
    await worker.hear("working")
    await worker.hear("done")
    await producer.ask("publish", jobs=jobs, **how)
    stage.analyze()
    with stage.measured(producer=[producer], worker=[worker]):
        await worker.tell("work", jobs=jobs)
        await worker.hear("working")
        worked = await worker.hear("done")
    stage.check_nothing_is_left()
    return _rate([worked])


async def _end_to_end(stage: Stage, jobs: int, batch: int) -> Figures:
    producer, worker = await stage.driver(), await stage.driver()
    await producer.ask("setup")
    how = {"batch": batch, "tasks": _TASKS if batch == 1 else stage.contestant.bulk_tasks}

    async def both(count: int) -> Sequence[Mapping[str, Any]]:
        await worker.tell("work", jobs=count)
        await worker.hear("working")
        return await asyncio.gather(producer.ask("publish", jobs=count, **how), worker.hear("done"))

    await both(max(batch, jobs // _WARM))
    with stage.measured(producer=[producer], worker=[worker]):
        published, worked = await both(jobs)
    stage.check_nothing_is_left()
    return _rate([published], until=worked)


async def _latency(stage: Stage, jobs: int) -> Figures:
    driver = await stage.driver()
    await driver.ask("setup")
    jobs, every_ms = stage.pace(jobs, _LATENCY_MS)
    await driver.ask("latency", jobs=_FEW, every_ms=every_ms)
    with stage.measured(worker=[driver]):
        told = await driver.ask("latency", jobs=jobs, every_ms=every_ms)
    found = sorted(told["latencies_us"])
    return {name: found[math.ceil(len(found) * part) - 1] / 1_000 for name, part in (("p50", 0.5), ("p99", 0.99))}


def _rate(parts: Sequence[Mapping[str, Any]], until: Mapping[str, Any] | None = None) -> Figures:
    began = min(part["began"] for part in parts)
    ended = max(part["ended"] for part in (*parts, *([until] if until else [])))
    return {"rate": sum(part["jobs"] for part in parts) / (ended - began) * 1e9}


_AT_REST = (
    Target("must", ["pg-boss"], "<", 1.0, "p50"),
    Target("must", ["pg-boss"], "<", 1.0, "p99"),
    Target("aim", ["queue"], "≤", 0.8, "p50"),
    Target("aim", ["queue"], "≤", 1.0, "p99"),
)

SCENARIOS: Sequence[Scenario] = (
    Scenario(
        "publish_singly",
        "publish singly, 16 tasks in one process",
        lambda stage, jobs: _publish(stage, jobs, 1),
        3_000,
        (*_EVERYBODY, "echo"),
        targets=(Target("must", ["queue"], ">", 1.0), Target("aim", ["queue"], "≥", 2.0)),
    ),
    Scenario(
        "publish_bulk",
        "publish by 1,000",
        lambda stage, jobs: _publish(stage, jobs, 1_000),
        60_000,
        targets=(
            Target("must", ["pg-boss", "Graphile Worker"], "≥", 1.0),
            Target("aim", ["queue"], "≥", 1.0),
            Target("aim", ["ceiling"], "≥", 0.7),
        ),
    ),
    Scenario(
        "drain",
        "drain jobs that do nothing",
        _drain,
        30_000,
        targets=(
            Target("must", ["queue"], "≥", 1.2),
            Target("aim", ["queue"], "≥", 1.6),
            Target("aim", ["ceiling"], "≥", 0.6),
        ),
    ),
    Scenario(
        "end_to_end_singly",
        "end to end, published singly",
        lambda stage, jobs: _end_to_end(stage, jobs, 1),
        3_000,
        targets=(Target("must", ["queue"], ">", 1.0), Target("aim", ["queue"], "≥", 2.0)),
    ),
    Scenario(
        "end_to_end_by_100",
        "end to end, published by 100",
        lambda stage, jobs: _end_to_end(stage, jobs, 100),
        20_000,
        targets=(Target("must", ["pg-boss"], ">", 1.0), Target("aim", ["Graphile Worker"], ">", 1.0)),
    ),
    Scenario(
        "latency",
        "idle latency",
        _latency,
        100,
        _WITH_LATENCY,
        ("p50", "p99"),
        targets=_AT_REST,
    ),
    Scenario(
        "latency_defaults",
        "idle latency, everybody at defaults",
        _latency,
        100,
        _WITH_LATENCY,
        ("p50", "p99"),
        "defaults",
        targets=_AT_REST,
    ),
    Scenario(
        "ungrouped",
        "publish singly, 4 processes with one call at a time each",
        _alone,
        3_000,
        ("jobwire", "ceiling", "echo"),
        targets=(Target("must", ["echo"], "≥", 0.6),),
    ),
)
