"""Load on a server, by the processes of `bench.speed.load`: rates in jobs a second, from one clock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.arena import Arena
from jobwire_server.cli.children import Child

PROGRAM = "bench.speed.load"
NANOSECONDS = 1e9
_TAIL_BYTES = 1_000
_PATIENCE = 900.0
"""Seconds for a run: more than any takes, so that one that hangs is told of."""


@dataclass(frozen=True)
class Form:
    """How the load of a run is shaped: jobs in a publish, publishes at once, streams, queues, credits of a stream."""

    batch: int = 100
    tasks: int = 4
    streams: int = 1
    queues: int = 1
    in_flight: int = 1_000


@asynccontextmanager
async def working(place: Arena, form: Form, jobs: int = 0) -> AsyncIterator[Child]:
    """Workers of that form, from the moment that all are subscribed; `jobs` 0: until the block ends."""
    async with place.player("work", jobs, form.streams, form.queues, form.in_flight, program=PROGRAM) as player:
        yield player


@asynccontextmanager
async def publishing(place: Arena, form: Form, jobs: int = 0, rate: int = 0) -> AsyncIterator[Child]:
    """A producer of that form; `jobs` 0: until the block ends, `rate` 0: as fast as it can."""
    arguments = ("publish", jobs, form.batch, form.tasks, form.queues, rate)
    async with place.player(*arguments, program=PROGRAM) as player:
        yield player


async def end_to_end(place: Arena, form: Form, jobs: int) -> float:
    """Publishes and completes so many jobs at once; the rate, from the first publish to the last answered Ack."""
    async with working(place, form, jobs) as worker, publishing(place, form, jobs) as producer:
        began = (await producer.logged("done", _PATIENCE))["began"]
        ended = (await worker.logged("done", _PATIENCE))["ended"]
    return jobs / (_int(ended) - _int(began)) * NANOSECONDS


async def drain(place: Arena, form: Form, jobs: int) -> float:
    """Completes so many of the jobs that wait; the rate, from the first delivery to the last answered Ack."""
    async with working(place, form, jobs) as worker:
        done = await worker.logged("done", _PATIENCE)
    return jobs / (_int(done["ended"]) - _int(done["began"])) * NANOSECONDS


@dataclass(frozen=True)
class Tick:
    """How many jobs some workers had recorded, and when, in ns since 1970."""

    at: int
    jobs: int

    def rate_since(self, before: Tick) -> float:
        """Jobs a second between two ticks."""
        return (self.jobs - before.jobs) / max(1, self.at - before.at) * NANOSECONDS


def last_tick(workers: Sequence[Child]) -> Tick:
    """Of all workers together."""
    ticks = [_last_tick_of(worker) for worker in workers]
    return Tick(max(tick.at for tick in ticks), sum(tick.jobs for tick in ticks))


def _last_tick_of(worker: Child) -> Tick:
    with worker.log.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = log.read().split(b"\n")[1:-1]
    ticks = [line for line in map(json.loads, lines) if line["event"] == "tick"]
    return Tick(ticks[-1]["at"], ticks[-1]["jobs"]) if ticks else Tick(time.time_ns(), 0)


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
