"""What both Python drivers share: the harness's commands, read from stdin and answered on stdout.

A driver is a `Peer`, which does a few things in its product's own way, and `serve(peer)`. Always true: stdout carries
answers and nothing else; a job counts as finished only when the peer's tables say so, which is looked up each 10 ms
once the last handler has run. It runs in an environment of the peers', so it knows nothing but the standard library.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import sys
import time
from collections.abc import Callable
from typing import Protocol

LOOK_AGAIN_SECONDS = 0.01
WARM_UP_JOBS = 3
PAYLOAD_BYTES = int(os.environ.get("BENCH_PAYLOAD_BYTES", "200"))
_NOISE = secrets.token_hex(4096)

Handle = Callable[[str | bytes], None]
"""To be called with the payload, JSON text, of every job that the worker gets."""


class Peer(Protocol):
    """A product, at the settings asked for."""

    async def setup(self) -> None:
        """Make schema and queue."""

    async def open_publisher(self) -> None:
        """Connect what publishes; once is enough."""

    async def publish(self, payloads: list[str]) -> None:
        """Publish by one call, which is the product's publish-one call if it is one job; return when it is durable."""

    async def start_worker(self, handle: Handle) -> None:
        """Start the product's worker; return when it runs."""

    async def stop_worker(self) -> None:
        """Stop it in order."""

    async def remaining(self) -> int:
        """Count the jobs without a durable outcome."""

    async def close(self) -> None:
        """Disconnect."""


def target() -> str:
    """Return the connection string of the database to use."""
    return os.environ["BENCH_TARGET"]


def at_best() -> bool:
    """Whether the product's best settings are asked for, rather than its defaults."""
    return os.environ.get("BENCH_SETTINGS") == "best"


def scenario() -> str:
    """Return what is measured, such as `drain`; empty if the harness does not say."""
    return os.environ.get("BENCH_SCENARIO", "")


async def serve(peer: Peer) -> None:
    """Answer the harness's commands until its end of stdin."""
    say(event="ready")
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        match command.pop("do"):
            case "setup":
                await peer.setup()
                say(event="done")
            case "publish":
                say(event="done", **await _publish(peer, **command))
            case "work":
                say(event="done", **await _work(peer, **command))
            case "latency":
                say(event="done", latencies_us=await _measure_latency(peer, **command))
            case unknown:
                raise ValueError(f"the harness asks for {unknown!r}, which this driver does not know")
    await peer.close()


def say(**answer: object) -> None:
    print(json.dumps(answer), flush=True)


def _payload(number: int) -> str:
    head = f'{{"job":{number},"sent":{time.time_ns()},"text":"'
    start = number % (len(_NOISE) - PAYLOAD_BYTES)
    return head + _NOISE[start : start + PAYLOAD_BYTES - len(head) - 2] + '"}'


async def _publish(peer: Peer, *, jobs: int, batch: int = 1, tasks: int = 16) -> dict[str, int]:
    """Publish from so many callers at once, each waiting for its answer before its next call."""
    await peer.open_publisher()
    starts = iter(range(0, jobs, batch))

    async def caller() -> None:
        for start in starts:
            await peer.publish([_payload(number) for number in range(start, min(start + batch, jobs))])

    began = time.time_ns()
    await asyncio.gather(*(caller() for _ in range(tasks)))
    return {"began": began, "ended": time.time_ns(), "jobs": jobs, "calls": -(-jobs // batch)}


async def _work(peer: Peer, *, jobs: int) -> dict[str, int]:
    handled = began = 0
    all_handled = asyncio.Event()

    def handle(_payload: str | bytes) -> None:
        nonlocal handled, began
        handled += 1
        began = began or time.time_ns()
        if handled == jobs:
            all_handled.set()

    await peer.remaining()  # so that the first look at the end does not have to plan
    await peer.start_worker(handle)
    say(event="working")
    await all_handled.wait()
    ended = await _when_durable(peer)
    await peer.stop_worker()
    return {"began": began, "ended": ended, "jobs": jobs}


async def _measure_latency(peer: Peer, *, jobs: int, every_ms: float = 50) -> list[float]:
    """Publish a job each `every_ms`, give or take half, so that none falls in step with a peer that polls; µs."""
    arrived: asyncio.Queue[float] = asyncio.Queue()
    await peer.open_publisher()
    await peer.start_worker(
        lambda payload: arrived.put_nowait((time.time_ns() - int(json.loads(payload)["sent"])) / 1000)
    )
    for number in range(WARM_UP_JOBS):
        await peer.publish([_payload(number)])
        await arrived.get()
    for number in range(jobs):
        await asyncio.sleep(every_ms / 1000 * random.uniform(0.5, 1.5))
        await peer.publish([_payload(number)])
    latencies = [await arrived.get() for _ in range(jobs)]
    await _when_durable(peer)
    await peer.stop_worker()
    return latencies


async def _when_durable(peer: Peer) -> int:
    """Wait until no job is left; return when the look that found none began, which is when it was true."""
    while True:
        began = time.time_ns()
        if not await peer.remaining():
            return began
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
