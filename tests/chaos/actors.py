"""Those who use Jobwire in a run: a program for each part, on the real client or, where it misbehaves, on bare stubs.

    python -m tests.chaos.actors PART NAME FOLDER TARGET SETTINGS

SETTINGS is JSON with the fields of the part's class. Each part goes on until SIGTERM, writes down what it sees into
FOLDER/NAME.jsonl, and takes every error of the service as what it is for a user: a reason to try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Before gRPC is imported, as in tests/conftest.py.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

import grpc.aio

from jobwire import (
    Client,
    FailForGood,
    Job,
    JobOptions,
    JobState,
    JobwireError,
    NewJob,
    QueueShare,
    ReleaseJob,
    RetryIn,
    Worker,
)
from jobwire.connection import Connection
from jobwire.convert import spec_from
from jobwire.v1 import queue_service_pb2 as pb
from jobwire.v1.admin_service_pb2 import PauseQueueRequest, ResumeQueueRequest
from jobwire.wire import to_duration
from tests.chaos import gated, history
from tests.chaos.history import Record
from tests.chaos.recorder import record_all

BLOCK_SIGNAL = signal.SIGUSR1
"""Has a worker's event loop stand still for `block_seconds`, while gRPC's own threads go on."""

# What the jobs of a run do, and how often: most are quick and succeed.
PLANS = {"done": 80, "fail": 8, "release": 3, "retry_in": 2, "permanent": 1, "long": 4, "progress": 2}


_PUBLISH_SECONDS = 10.0
_ADMIN_SECONDS = 5.0


@dataclass(frozen=True)
class Publisher:
    """Publishes `rate` jobs a second in calls of 1 to `batch` jobs, `total` in all, each until it is acknowledged.

    A queue that is named several times is drawn so much more often.
    """

    queues: list[str]
    rate: float
    total: int
    batch: int = 20
    seed: int = 0
    long_ms: int = 2_000

    async def run(self, target: str, record: Record) -> None:
        chance = random.Random(self.seed)
        begun, count = time.monotonic(), 0
        async with _connected(target) as connection:
            calls: set[asyncio.Task[None]] = set()
            while count < self.total:
                size = min(chance.randint(1, self.batch), self.total - count)
                count += size
                queue = chance.choice(self.queues)
                request = pb.PublishRequest(queue=queue, jobs=[self._job(queue, count, chance) for _ in range(size)])
                task = asyncio.create_task(self._publish(connection, request, chance.random()))
                calls.add(task)
                task.add_done_callback(calls.discard)
                if len(calls) >= 50:
                    # The service is away or slow: what waits does not grow without end.
                    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                    begun = max(begun, time.monotonic() - count / self.rate)
                await asyncio.sleep(max(0.0, begun + count / self.rate - time.monotonic()))
            if calls:
                await asyncio.wait(calls)

    def _job(self, queue: str, count: int, chance: random.Random) -> pb.JobSpec:
        [plan] = chance.choices(list(PLANS), weights=list(PLANS.values()))
        data = {
            "plan": plan,
            "runs": chance.randint(1, 2),
            "ms": self.long_ms if plan == "long" else chance.choice((0, 0, 5, 20)),
        }
        options = JobOptions(retry_delay=0.2, retry_limit=3)
        start_in = chance.uniform(0.1, 2.0) if chance.random() < 0.03 else None
        spec = spec_from(NewJob(data, priority=chance.choice((0, 0, 0, 5)), start_in=start_in, options=options))
        spec.key, group, tier = gated.labels(queue, count, chance)
        if group:
            spec.group.id, spec.group.tier = group, tier
        return spec

    async def _publish(self, connection: Connection, request: pb.PublishRequest, luck: float) -> None:
        while True:
            try:
                await connection.call(connection.queue.Publish, request, _PUBLISH_SECONDS)
            except JobwireError:
                # The ids stay the same: whether it was stored does not matter.
                await asyncio.sleep(0.2)
                continue
            break
        if luck < 0.05:
            # Somebody whose answer was lost on the way publishes once more.
            with contextlib.suppress(JobwireError):
                await connection.call(connection.queue.Publish, request, _PUBLISH_SECONDS)


class PlannedFailure(Exception):
    """What a handler raises on purpose."""


@dataclass(frozen=True)
class WorkerPart:
    """A worker on the real client that does what the jobs say."""

    queues: list[str]
    concurrency: int
    heartbeat: float
    grace: float
    block_seconds: float = 10.0
    shared: bool = False
    """Whether its queues share one session, each with a limit and a weight of its own."""

    async def run(self, target: str, record: Record) -> None:
        worker = Worker(
            target,
            name=record.who,
            stop_grace=5.0,
            heartbeat_interval=self.heartbeat,
            resume_grace=self.grace,
        )
        # In the main thread, where the event loop is.
        signal.signal(BLOCK_SIGNAL, lambda *_: time.sleep(self.block_seconds))
        if self.shared:
            shares = [QueueShare(queue, 3 * n + 1, self.concurrency) for n, queue in enumerate(self.queues)]
            worker.handler(*shares, concurrency=self.concurrency + 1)(self._handler(record))
        else:
            for queue in self.queues:
                worker.handler(queue, concurrency=self.concurrency)(self._handler(record))
        await worker.run()

    def _handler(self, record: Record) -> Any:
        async def handle(job: Job) -> dict[str, int]:
            record.note(history.Started, 0, job.id, job.attempt)
            how = "stopped"
            try:
                await self._do(job)
                how = "done"
            except (PlannedFailure, FailForGood, ReleaseJob, RetryIn):
                how = "raised"
                raise
            finally:
                record.note(history.Finished, 0, job.id, job.attempt, how)
            return {"attempt": job.attempt}

        return handle

    async def _do(self, job: Job) -> None:
        plan, seconds = job.data["plan"], job.data["ms"] / 1_000
        if plan == "progress":
            await job.progress(0.5, "half")
        await asyncio.sleep(seconds)
        if job.attempt > job.data["runs"]:
            return
        match plan:
            case "fail":
                raise PlannedFailure("as planned")
            case "release":
                raise ReleaseJob
            case "retry_in":
                raise RetryIn(0.1)
            case "permanent":
                raise FailForGood("as planned")


@dataclass
class Rogue:
    """A worker that breaks the rules: leaves without a word, comes back with stale leases, says everything twice.

    Each time it leaves, it writes that down as a fault done to itself.
    """

    queues: list[str]
    heartbeat: float
    grace: float
    seed: int = 0
    credits: int = 4
    _held: dict[str, None] = field(default_factory=dict)
    _stale: list[str] = field(default_factory=list)

    async def run(self, target: str, record: Record) -> None:
        chance = random.Random(self.seed)
        connection = Connection(target, balancing="pick_first")
        try:
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):  # whatever ended the visit, the next one begins
                    await self._visit(connection, record, chance)
                await asyncio.sleep(chance.uniform(0.2, 1.0))
        finally:
            await connection.close()

    async def _visit(self, connection: Connection, record: Record, chance: random.Random) -> None:
        request = pb.SubscribeRequest(
            queues=self.queues,
            max_in_flight=self.credits,
            worker=record.who,
            heartbeat_interval=to_duration(self.heartbeat),
            resume_grace=to_duration(self.grace),
        )
        call: Any = connection.queue.Subscribe(request)
        session, left = "", chance.randint(3, 60)
        try:
            while isinstance(event := await call.read(), pb.SubscribeResponse) and not event.HasField("draining"):
                session = event.opened.session_id or session
                handles = [delivery.handle for delivery in event.deliveries.deliveries]
                self._held |= dict.fromkeys(handles)
                left -= len(handles)
                if left <= 0:
                    return
                items = [self._word(handle, chance) for handle in handles]
                if event.HasField("cancellation"):
                    items.append(pb.AckItem(handle=event.cancellation.handle, release=pb.Release()))
                await self._say(connection, session, event.sequence, items)
                if items and chance.random() < 0.3:
                    # Once more, now this and now something else, with what was left unsaid in earlier sessions.
                    again = [self._word(handle, chance) for handle in handles]
                    await self._say(connection, session, event.sequence, [*items, *again, *self._old_words()])
        finally:
            call.cancel()
            if self._held:
                record.note(history.Fault, 0, "abandon", record.who, time.monotonic())
                self._stale = [*self._stale, *self._held][-20:]
                self._held = {}

    def _old_words(self) -> list[pb.AckItem]:
        return [pb.AckItem(handle=handle, complete=pb.Complete()) for handle in self._stale]

    def _word(self, handle: str, chance: random.Random) -> pb.AckItem:
        return chance.choice(
            [
                pb.AckItem(handle=handle, complete=pb.Complete(output='"rogue"')),
                pb.AckItem(handle=handle, complete=pb.Complete()),
                pb.AckItem(handle=handle, release=pb.Release()),
                pb.AckItem(handle=handle, fail=pb.Fail(type="Rogue", message="on a whim")),
            ]
        )

    async def _say(self, connection: Connection, session: str, sequence: int, items: list[pb.AckItem]) -> None:
        request = pb.AckRequest(session_id=session, last_sequence=sequence, items=items)
        with contextlib.suppress(JobwireError):  # said again, or never: it is that kind of worker
            await connection.attempt(connection.queue.Ack, request, 5.0)
            for item in items:
                self._held.pop(item.handle, None)


@dataclass(frozen=True)
class Operator:
    """Looks at jobs, waits for some, cancels a few; pauses a queue now and then, and resumes it soon."""

    queues: list[str]
    seed: int = 0

    async def run(self, target: str, record: Record) -> None:
        chance = random.Random(self.seed)
        async with Client(target, timeout=_ADMIN_SECONDS) as client, _connected(target) as connection:
            while True:
                with contextlib.suppress(JobwireError):
                    await self._look(client, chance)
                if chance.random() < 0.1:
                    await self._pause(connection, chance)
                await asyncio.sleep(0.3)

    async def _pause(self, connection: Connection, chance: random.Random) -> None:
        name, admin = chance.choice(self.queues), connection.admin
        with contextlib.suppress(JobwireError):  # it may be paused, or not
            await connection.attempt(admin.PauseQueue, PauseQueueRequest(name=name), _ADMIN_SECONDS)
            await asyncio.sleep(chance.uniform(0.2, 2.0))
        while True:
            with contextlib.suppress(JobwireError):
                await connection.attempt(admin.ResumeQueue, ResumeQueueRequest(name=name), _ADMIN_SECONDS)
                return
            await asyncio.sleep(0.2)

    async def _look(self, client: Client, chance: random.Random) -> None:
        queue = chance.choice(self.queues)
        state = chance.choice([JobState.CREATED, JobState.ACTIVE, JobState.RETRY, JobState.BLOCKED])
        jobs = [job async for job in client.admin.list_jobs(queue, states=[state], limit=20)]
        if jobs:
            job = chance.choice(jobs)
            if chance.random() < 0.3:
                await client.admin.cancel_jobs(queue, [job.id])
            await client.wait(job.id, queue, timeout=1.0)


@contextlib.asynccontextmanager
async def _connected(target: str) -> AsyncIterator[Connection]:
    connection = Connection(target)
    try:
        yield connection
    finally:
        await connection.close()


PARTS: dict[str, Any] = {"publisher": Publisher, "worker": WorkerPart, "rogue": Rogue, "operator": Operator}


async def _until_told(work: Any) -> None:
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main(part: str, name: str, folder: str, target: str, settings: str) -> None:
    """Runs one part."""
    record = Record(Path(folder), name)
    record_all(record)
    work = PARTS[part](**json.loads(settings)).run(target, record)
    # The worker takes its signals by itself, as in life.
    asyncio.run(work if part == "worker" else _until_told(work))


if __name__ == "__main__":
    main(*sys.argv[1:])
