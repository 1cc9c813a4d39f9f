"""Who takes part: Jobwire from Python and from Node, what it cannot pass, and the peers if they are wanted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.arena import arena
from bench.speed.contest import JOBWIRE, NODE, Contestant, Service, python_driver
from bench.speed.peers import registry
from bench.speed.peers.install import DEFAULT_FOLDER, node_in
from jobwire_server.cli.children import child

_ROOT = Path(__file__).parents[2]
_UNFINISHED = "SELECT count(*) FROM jobwire.live_job"


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
    return [
        Contestant(JOBWIRE, "jobwire", python_driver("bench.speed.drivers.jobwire_driver"), _jobwire, _UNFINISHED),
        from_node(NODE),
        Contestant(
            "ceiling",
            "ceiling",
            python_driver("bench.speed.ceiling"),
            remaining=_UNFINISHED,
            environment={"BENCH_CEILING": ceiling},
            version=ceiling,
        ),
        Contestant("echo server", "echo", python_driver("bench.speed.echo"), _echo),
    ]


def from_node(name: str, checkout: Path = _ROOT) -> Contestant:
    """Jobwire driven by a checkout's Node client, in the Node that runs the peers if that is installed."""
    client, own = checkout / "clients/node", node_in(DEFAULT_FOLDER)
    node = str(own) if own.exists() else shutil.which("node")
    version, absent = "", ""
    if node is None:
        absent = "there is no node on PATH: install Node.js, 20 or newer, and run make client-node"
    elif not (client / "dist/esm/index.js").is_file() or not (client / "node_modules").is_dir():
        absent = "its client is not built: make client-node"
    else:
        said = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout
        version = f"on {said.strip()}"
    return Contestant(
        name,
        "jobwire",
        [node or "node", str(_ROOT / "bench/speed/drivers/jobwire_driver.mjs")],
        _jobwire,
        _UNFINISHED,
        environment={"BENCH_CLIENT": str(client)},
        version=version,
        absent=absent,
    )


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
