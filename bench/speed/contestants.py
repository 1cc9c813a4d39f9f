"""Who takes part: Jobwire, what it cannot pass, and the peers if they are wanted."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.arena import arena
from bench.speed.contest import Contestant, Service, python_driver
from jobwire_server.cli.children import child


@asynccontextmanager
async def _jobwire(dsn: str) -> AsyncIterator[Service]:
    async with arena(dsn, schema="jobwire") as place:
        yield Service(place.address, place.server.pid)


@asynccontextmanager
async def _echo(_: str) -> AsyncIterator[Service]:
    with tempfile.TemporaryDirectory(prefix="jobwire-speed-") as folder:
        command = [sys.executable, "-m", "bench.speed.echo", "serve"]
        async with child("echo server", command, Path(folder) / "echo.log") as server:
            yield Service(str((await server.logged("serving"))["grpc"]), server.pid)


def our_own(ceiling: str) -> Sequence[Contestant]:
    """Those of this tree. `ceiling` is the shape of the ceiling's workers; empty for its default."""
    unfinished = "SELECT count(*) FROM jobwire.live_job"
    return [
        Contestant("Jobwire", "jobwire", python_driver("bench.speed.drivers.jobwire_driver"), _jobwire, unfinished),
        Contestant(
            "ceiling",
            "ceiling",
            python_driver("bench.speed.ceiling"),
            remaining=unfinished,
            environment={"BENCH_CEILING": ceiling},
        ),
        Contestant("echo server", "echo", python_driver("bench.speed.echo"), _echo),
    ]
