"""Who takes part: Jobwire, what it cannot pass, and the peers if they are wanted."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.arena import arena
from bench.speed.contest import Contestant, Service, python_driver
from bench.speed.peers import registry
from jobwire_server.cli.children import child


@asynccontextmanager
async def _jobwire(dsn: str) -> AsyncIterator[Service]:
    # All at its defaults but how it stops: nobody is left who could send last Acks.
    async with arena(dsn, schema="jobwire", drain_linger=0) as place:
        yield Service(place.address, place.server.pid)


@asynccontextmanager
async def _echo(_: str) -> AsyncIterator[Service]:
    with tempfile.TemporaryDirectory(prefix="jobwire-speed-") as folder:
        command = [sys.executable, "-m", "bench.speed.echo", "serve"]
        async with child("echo server", command, Path(folder) / "echo.log") as server:
            yield Service(str((await server.logged("serving"))["grpc"]), server.pid)


def our_own(ceiling: str) -> Sequence[Contestant]:
    """Those of this tree. `ceiling` is the shape of the ceiling's worker, jobs a claim x loops."""
    unfinished = "SELECT count(*) FROM jobwire.live_job"
    return [
        Contestant("Jobwire", "jobwire", python_driver("bench.speed.drivers.jobwire_driver"), _jobwire, unfinished),
        Contestant(
            "ceiling",
            "ceiling",
            python_driver("bench.speed.ceiling"),
            remaining=unfinished,
            environment={"BENCH_CEILING": ceiling},
            version=ceiling,
        ),
        Contestant("echo server", "echo", python_driver("bench.speed.echo"), _echo),
    ]


def peers(say: Callable[[str], None]) -> Sequence[Contestant]:
    """Other job queues, installed if need be, which `say` is told of; what cannot be had is among them, with why."""
    return [
        Contestant(
            peer.name,
            "queue" if peer.in_ranking else "messages",
            peer.command,
            remaining=peer.remaining_sql,
            idle_pace=None if peer.idle_pace == registry.Pace() else (peer.idle_pace.jobs, peer.idle_pace.every_ms),
            version=peer.version,
            absent=peer.missing,
        )
        for peer in registry.contestants(say=say)
    ]
