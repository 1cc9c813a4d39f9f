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
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.arena import MIB, Arena, arena, postgres, table
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


class Bench:
    """Runs the parts, each on a server of its own, so that none begins with what another one left in memory."""

    def __init__(self, dsn: str, settle: float) -> None:
        self._dsn = dsn
        self._settle = settle
        self.rows: list[Row] = []

    async def idle(self) -> None:
        """Nothing to do: alone, and with many sessions."""
        async with arena(self._dsn) as place:
            rest = await self._settled(place)
            self._note("server at rest", f"{rest:.0f} MiB")
            self._note("statements a second", await self._statements(place), "transactions of the whole database")
            async with place.player("idle", 1_000):
                full = await self._settled(place)
                self._note("1,000 idle streams", f"{full:.0f} MiB", f"{(full - rest) * 1024 / 1_000:.0f} KiB each")
                self._note("statements a second", await self._statements(place), "and 200 heartbeats answered a second")
            self._note("after they left", f"{await self._settled(place):.0f} MiB")

    async def busy(self) -> None:
        """Many sessions with something to do."""
        done = "SELECT count(*) FROM {}.archive"
        async with arena(self._dsn) as place:
            rest = await self._settled(place)
            async with place.player("busy", 200, "busy"), place.player("feed", 500, "busy"):
                [(before,)], began = place.query(done), time.monotonic()
                full = await self._settled(place)
                [(after,)], took = place.query(done), time.monotonic() - began
                note = f"{(full - rest) * 1024 / 200:.0f} KiB each; {(after - before) / took:.0f} jobs a second done"
                self._note("200 busy streams", f"{full:.0f} MiB", note)

    async def frozen(self) -> None:
        """Subscribers that never read, and many large jobs for them."""
        jobs = [JobSpec(data=json.dumps("x" * 60_000))] * 50
        async with arena(self._dsn) as place:
            async with grpc.aio.insecure_channel(place.address) as channel:
                for _ in range(60):
                    await QueueServiceStub(channel).Publish(PublishRequest(queue="frozen", jobs=jobs))
            before = await self._settled(place)
            for count in (1, 10):
                async with place.player("frozen", count, "frozen"):
                    full = await self._settled(place)
                note = f"{full - before:.0f} MiB more; 1,000 credits each, and 3,000 jobs of 60 KB"
                self._note(f"{count} {'reader that never reads' if count == 1 else 'of them'}", f"{full:.0f} MiB", note)

    async def flood(self, calls: int, size: int) -> None:
        """More publishes under way than are held."""
        async with arena(self._dsn) as place, grpc.aio.insecure_channel(place.address) as channel:
            probe = Probe(channel)
            calm = await probe.run(self._settle)
            before = place.memory()
            place.forget_peak()
            async with place.player("flood", calls, size) as player:
                rushed = await probe.run(max(self._settle, 15.0))
                peak = place.memory("VmHWM")
                await player.stop()
                said = await player.logged("flooded")
            stored = float(str(said["stored_bytes"])) / MIB / float(str(said["seconds"]))
            refused = int(str(said.get("RESOURCE_EXHAUSTED", 0)))
            note = f"{peak - before:.0f} MiB more; {stored:.0f} MiB stored a second, {refused:,} calls refused"
            for code in set(said) - {"event", "seconds", "stored_bytes", "jobs", "stored", "RESOURCE_EXHAUSTED"}:
                note += f", {said[code]} {code}"
            self._note(f"{calls:,} publishes of {size / 1e6:.1f} MB under way", f"{peak:.0f} MiB at most", note)
            for kind, took in sorted(rushed.items()):
                self._note(f"… {kind}", _latency(took), f"{_ratio(took, calm[kind])} as before, {_latency(calm[kind])}")
            self._note("… after it", f"{await self._settled(place):.0f} MiB")

    async def _settled(self, place: Arena) -> float:
        await asyncio.sleep(self._settle)
        return place.memory()

    async def _statements(self, place: Arena) -> str:
        # Long enough for the statistics of backends that write them late.
        await asyncio.sleep(3)
        before, began = place.transactions(), time.monotonic()
        await asyncio.sleep(max(30.0, self._settle))
        return f"{(place.transactions() - before) / (time.monotonic() - began):.1f}"

    def _note(self, what: str, value: str, note: str = "") -> None:
        print(f"{what}: {value} {note and f'({note})'}", file=sys.stderr, flush=True)
        self.rows.append(Row(what, value, note))


def _latency(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1e3:.1f} ms, 99 %: {ordered[len(ordered) * 99 // 100] * 1e3:.1f} ms"


def _ratio(during: Sequence[float], before: Sequence[float]) -> str:
    return f"{statistics.median(during) / statistics.median(before):.1f} times as long"


async def main(only: Sequence[str], settle: float, *, as_json: bool) -> None:
    with postgres() as dsn:
        bench = Bench(dsn, settle)
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "idle": bench.idle,
            "busy": bench.busy,
            "frozen": bench.frozen,
            "large": lambda: bench.flood(34, 3 * MIB - 65_536),
            "small": lambda: bench.flood(1_000, 100_000),
        }
        for name in only or parts:
            await parts[name]()
    if as_json:
        print(json.dumps([asdict(row) for row in bench.rows], indent=2))
    else:
        print(table(("what", "measured", ""), [(row.what, row.value, row.note) for row in bench.rows]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="idle, busy, frozen, large, small; all, if none is named")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each state is held")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    asyncio.run(main(given.parts, given.seconds, as_json=given.json))
