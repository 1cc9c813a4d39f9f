"""Load on a server, by the processes of `bench.speed.load`: rates in jobs a second, from one clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.arena import Arena
from jobwire_server.cli.children import Child

PROGRAM = "bench.speed.load"
NANOSECONDS = 1e9


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
        began = (await producer.logged("done"))["began"]
        ended = (await worker.logged("done"))["ended"]
    return jobs / (_int(ended) - _int(began)) * NANOSECONDS


async def drain(place: Arena, form: Form, jobs: int) -> float:
    """Completes so many of the jobs that wait; the rate, from the first delivery to the last answered Ack."""
    async with working(place, form, jobs) as worker:
        done = await worker.logged("done")
    return jobs / (_int(done["ended"]) - _int(done["began"])) * NANOSECONDS


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
