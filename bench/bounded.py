"""What a server takes, and what it keeps while it is given too much: `make bounded`.

Memory at rest, for each idle and each busy stream, with readers that never read, and with more publishes under way than
it holds; what it asks of the database while nothing happens; and for how long Acks and health checks wait while
publishes are refused, against before in the same run. Prints a table in Markdown, or JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.arena import MIB, Arena, arena, table
from jobwire.v1.queue_service_pb2 import (
    AckItem,
    AckRequest,
    Extend,
    GetJobRequest,
    JobSpec,
    PublishRequest,
    SubscribeRequest,
)
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub

_PROBE_PAUSE = 0.05


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    value: str
    note: str = ""


class Probe:
    """A worker with one running job that asks again and again, and notes how long each kind of call takes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._queue = QueueServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    async def run(self, seconds: float) -> Mapping[str, Sequence[float]]:
        """The durations of calls, by kind, in seconds."""
        published = await self._publish()
        stream = self._queue.Subscribe(SubscribeRequest(queues=["probe"]))
        session = (await stream.read()).opened.session_id
        handle = (await stream.read()).deliveries.deliveries[0].handle
        running = AckRequest(session_id=session, items=[AckItem(handle=handle, extend=Extend())])
        sign, look = AckRequest(session_id=session), GetJobRequest(queue="probe", job_id=published)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "Ack that extends": lambda: self._queue.Ack(running),
            "Ack as a sign of life": lambda: self._queue.Ack(sign),
            "GetJob": lambda: self._queue.GetJob(look),
            "health check": lambda: self._health.Check(health_pb2.HealthCheckRequest()),
        }
        took: dict[str, list[float]] = defaultdict(list)
        end = time.monotonic() + seconds

        async def repeat(kind: str, call: Callable[[], Awaitable[object]]) -> None:
            while time.monotonic() < end:
                began = time.perf_counter()
                await call()
                took[kind].append(time.perf_counter() - began)
                await asyncio.sleep(_PROBE_PAUSE)

        await asyncio.gather(*(repeat(kind, call) for kind, call in calls.items()))
        await self._queue.Ack(AckRequest(session_id=session, close_session=True))
        return took

    async def _publish(self) -> str:
        # What the run before gave back is delivered first; it does as well.
        answer = await self._queue.Publish(PublishRequest(queue="probe", jobs=[JobSpec()]))
        return answer.results[0].job_id


async def measure(arena: Arena, settle: float) -> list[Row]:
    """All of it, one after the other. `settle` is how long each state is held."""
    rows: list[Row] = []

    async def settled() -> float:
        await asyncio.sleep(settle)
        return arena.memory()

    async def statements() -> str:
        # The statistics of a backend that falls idle come late; its own look counts once.
        await asyncio.sleep(3)
        before, began = arena.transactions(), time.monotonic()
        await asyncio.sleep(max(20.0, settle))
        return f"{(arena.transactions() - before - 1) / (time.monotonic() - began):.1f}"

    rest = await settled()
    rows.append(Row("server at rest", f"{rest:.0f} MiB"))
    rows.append(Row("statements a second at rest", await statements(), "transactions of the database"))
    async with arena.player("idle", 1_000):
        idle = await settled()
        rows.append(Row("with 1,000 idle streams", f"{idle:.0f} MiB", f"{(idle - rest) * 1024 / 1_000:.0f} KiB each"))
        rows.append(Row("statements a second with 1,000 idle streams", await statements(), "200 heartbeats a second"))
    base = await settled()
    rows.append(Row("after they left", f"{base:.0f} MiB"))
    done = "SELECT count(*) FROM {}.archive"
    async with arena.player("busy", 200, "busy"), arena.player("feed", 500, "busy"):
        await asyncio.sleep(2)
        before, began = arena.query(done)[0][0], time.monotonic()
        busy = await settled()
        rate = (arena.query(done)[0][0] - before) / (time.monotonic() - began)
        each = f"{(busy - base) * 1024 / 200:.0f} KiB each, {rate:.0f} jobs a second done"
        rows.append(Row("with 200 busy streams", f"{busy:.0f} MiB", each))
    async with grpc.aio.insecure_channel(arena.address) as channel:
        rows += await _frozen(arena, QueueServiceStub(channel), settled)
        rows += await _flood(arena, Probe(channel), settle, settled)
    return rows


async def _frozen(arena: Arena, stub: QueueServiceStub, settled: Callable[[], Awaitable[float]]) -> list[Row]:
    text = json.dumps("x" * 60_000)
    for _ in range(60):
        await stub.Publish(PublishRequest(queue="frozen", jobs=[JobSpec(data=text)] * 50))
    before = await settled()
    async with arena.player("frozen", 3, "frozen"):
        during = await settled()
    note = f"{(during - before):.0f} MiB more; each may have 1,000 deliveries of 60 KB unread"
    return [Row("with 3 readers that never read", f"{during:.0f} MiB", note)]


async def _flood(arena: Arena, probe: Probe, settle: float, settled: Callable[[], Awaitable[float]]) -> list[Row]:
    rows: list[Row] = []
    calm = await probe.run(settle)
    for calls, size in ((34, 3 * MIB - 65_536), (1_000, 100_000)):
        before = await settled()
        peak = before
        async with AsyncExitStack() as stack:
            player = await stack.enter_async_context(arena.player("flood", calls, size))
            probing = asyncio.create_task(probe.run(max(settle, 15.0)))
            while not probing.done():
                peak = max(peak, arena.memory())
                await asyncio.sleep(0.05)
            rushed = await probing
            await player.stop()
            said = await player.logged("flooded")
        stored = int(str(said["stored_bytes"])) / MIB / float(str(said["seconds"]))
        refused = said.get("RESOURCE_EXHAUSTED", 0)
        name = f"{calls:,} Publish calls of {size / 1e6:.1f} MB under way"
        others = set(said) - {"event", "seconds", "stored_bytes", "jobs", "stored", "RESOURCE_EXHAUSTED"}
        note = f"{peak - before:.0f} MiB more; {stored:.0f} MiB/s stored, {refused:,} calls refused"
        rows.append(Row(name, f"{peak:.0f} MiB at most", note + "".join(f", {said[code]} {code}" for code in others)))
        for kind, took in rushed.items():
            rows.append(Row(f"… {kind}", _latency(took), f"before: {_latency(calm[kind])}; {_ratio(took, calm[kind])}"))
        rows.append(Row("… after it", f"{await settled():.0f} MiB"))
    return rows


def _latency(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1e3:.1f} ms, 99 %: {ordered[len(ordered) * 99 // 100] * 1e3:.1f} ms"


def _ratio(during: Sequence[float], before: Sequence[float]) -> str:
    return f"{statistics.median(during) / statistics.median(before):.1f} times"


async def main(settle: float, *, as_json: bool) -> None:
    async with arena() as place:
        rows = await measure(place, settle)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print(table(("what", "measured", ""), [(row.what, row.value, row.note) for row in rows]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each state is held")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    asyncio.run(main(given.seconds, as_json=given.json))
