"""What every contestant's process understands, and the loop of those in Python.

A driver is started with `BENCH_TARGET` (what it speaks to), `BENCH_SETTINGS` (`defaults` or `best`) and
`BENCH_PAYLOAD_BYTES`. It prints `{"event": "ready"}`, then answers each JSON line of its standard input with JSON lines
on its standard output, where nothing else appears; the end of its input ends it. Times are `time.time_ns()`, the clock
that all processes share.

setup    jobs of one queue can be stored from now on
publish  stores `jobs` jobs, `batch` per call, by `tasks` callers, each of which waits for its durable answer
work     runs the product's own worker with a handler that does nothing, until `jobs` outcomes are durable; says
         `working` as soon as it runs
latency  publishes a job each `every_ms`, give or take half, so that none falls in step with what polls, and says how
         long each took from the call to its handler
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import string
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

_NOISE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Worked:
    """When the first handler began and when the last outcome was durable, in nanoseconds."""

    began: int
    ended: int


class Driver(Protocol):
    """A contestant, connected. What it cannot do raises NotImplementedError."""

    async def setup(self) -> None:
        """Makes what jobs need to be stored."""

    async def store(self, payloads: Sequence[Mapping[str, Any]]) -> None:
        """Stores these by one call of the product's own, and returns when that is durable."""

    async def work(self, jobs: int, working: Callable[[], None]) -> Worked:
        """Handles so many jobs, calling `working` when the worker runs."""

    async def latencies(self, jobs: int, every: float) -> list[int]:
        """From the publishing call to the handler, in nanoseconds, one job each `every` seconds."""


class Payloads:
    """JSON objects of so many bytes as text, no two alike."""

    def __init__(self, size: int) -> None:
        letters = random.choices(string.ascii_letters, k=_NOISE_BYTES)
        self._noise = "".join(letters)
        self._length = max(0, size - len(json.dumps({"n": 10**12, "text": ""})))
        self._numbers = itertools.count(random.randrange(10**11, 10**12))

    def make(self, count: int) -> list[dict[str, Any]]:
        """The next ones."""
        return [self._one(number) for number in itertools.islice(self._numbers, count)]

    def _one(self, number: int) -> dict[str, Any]:
        begin = number * 31 % (_NOISE_BYTES - self._length)
        return {"n": number, "text": self._noise[begin : begin + self._length]}


async def pace(count: int, every: float, publish: Callable[[], Awaitable[None]]) -> None:
    """Calls `publish` so often, with pauses of `every` seconds, give or take half."""
    for _ in range(count):
        await asyncio.sleep(every * random.uniform(0.5, 1.5))
        await publish()


def run(connected: Callable[[str], AbstractAsyncContextManager[Driver]]) -> None:
    """Runs a driver in this process until the end of its input; `connected` is given `BENCH_TARGET`."""
    asyncio.run(_run(connected))


def best_settings() -> bool:
    """Whether the settings asked for are the best, and not the defaults."""
    return os.environ.get("BENCH_SETTINGS", "best") == "best"


async def _run(connected: Callable[[str], AbstractAsyncContextManager[Driver]]) -> None:
    payloads = Payloads(int(os.environ.get("BENCH_PAYLOAD_BYTES", "200")))
    async with connected(os.environ["BENCH_TARGET"]) as driver:
        _say("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            await _obey(driver, payloads, json.loads(line))


async def _obey(driver: Driver, payloads: Payloads, command: Mapping[str, Any]) -> None:
    jobs = command.get("jobs", 0)
    match command["do"]:
        case "setup":
            await driver.setup()
            _say("done")
        case "publish":
            await _publish(driver, payloads, jobs, command["batch"], command["tasks"])
        case "work":
            worked = await driver.work(jobs, lambda: _say("working"))
            _say("done", began=worked.began, ended=worked.ended, jobs=jobs)
        case "latency":
            found = await driver.latencies(jobs, command["every_ms"] / 1_000)
            _say("done", latencies_us=[round(each / 1_000) for each in found])
        case other:
            raise ValueError(f"there is no command {other!r}")


async def _publish(driver: Driver, payloads: Payloads, jobs: int, batch: int, tasks: int) -> None:
    starts = iter(range(0, jobs, batch))

    async def caller() -> None:
        for start in starts:
            await driver.store(payloads.make(min(batch, jobs - start)))

    began = time.time_ns()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(caller())
    _say("done", began=began, ended=time.time_ns(), jobs=jobs, calls=-(-jobs // batch))


def _say(event: str, **facts: object) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)
