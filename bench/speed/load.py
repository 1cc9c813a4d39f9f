"""Clients as bare as can be, in a process: `python -m bench.speed.load ADDRESS PART …`; logs JSON lines.

publish JOBS BATCH TASKS QUEUES [RATE]   publishes so many jobs, `BATCH` in a call, `TASKS` calls at once, to so many
                                         queues in turn; at most RATE jobs a second. JOBS 0: until SIGTERM
work JOBS STREAMS QUEUES IN_FLIGHT       as many sessions, each on a connection of its own and for its part of the
                                         queues, that complete at once what they get, until so many are recorded

They are the same whatever is measured: what differs between two runs is the server's work. `done` says when the first
job began (its publish, its delivery) and the last one was answered, in ns since 1970; `tick` how many are by now, four
times a second.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import grpc.aio

from bench.players import play, say
from jobwire.v1.queue_service_pb2 import (
    ACK_STATUS_APPLIED,
    AckItem,
    AckRequest,
    Complete,
    JobSpec,
    PublishRequest,
    SubscribeRequest,
    SubscribeResponse,
)
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub

if TYPE_CHECKING:
    from jobwire.v1.queue_service_pb2_grpc import QueueServiceAsyncStub

PAYLOAD_BYTES = 200
_ITEMS_PER_ACK = 1_000
_SERVICE = "jobwire.v1.QueueService"


def _repeated(method: str, *codes: str) -> dict[str, object]:
    """For a service config: calls of `method` that end so are repeated shortly, by gRPC itself."""
    policy = {"maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2}
    return {
        "name": [{"service": _SERVICE, "method": method}],
        "retryPolicy": policy | {"retryableStatusCodes": codes},
    }


# As the contract says. But a Publish that may have been stored is not: its jobs have no ids, and would be there twice.
_CONFIG = {"methodConfig": [_repeated("Ack", "ABORTED", "UNAVAILABLE"), _repeated("Publish", "ABORTED")]}
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", json.dumps(_CONFIG)))
_CONNECTING_AT_ONCE = 50
_TICK_SECONDS = 0.25
_COMPLETE = Complete()


def queue_name(number: int) -> str:
    return f"load-{number}"


def payload(number: int) -> str:
    """JSON of 200 bytes, another one for each number."""
    head = f'{{"number":{number},"text":"'
    return f'{head}{"x" * (PAYLOAD_BYTES - len(head) - 2)}"}}'


async def publish(address: str, jobs: int, batch: int, tasks: int, queues: int, rate: int) -> None:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub = QueueServiceStub(channel)
        await channel.channel_ready()
        say("ready")
        numbers: Iterator[int] = iter(range(jobs // batch)) if jobs else itertools.count()
        start, began = time.monotonic(), time.time_ns()

        async def caller() -> None:
            for number in numbers:
                if rate:
                    await asyncio.sleep(max(0.0, start + number * batch / rate - time.monotonic()))
                specs = [JobSpec(data=payload(number * batch + place)) for place in range(batch)]
                await stub.Publish(PublishRequest(queue=queue_name(number % queues), jobs=specs))

        await asyncio.gather(*(caller() for _ in range(tasks)))
        say("done", began=began, ended=time.time_ns(), jobs=jobs)
    await _told_to_end()


class _Tally:
    """What all sessions of a process have done together."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self.recorded = 0
        self.began = 0
        self.ended = 0
        self.finished = asyncio.Event()

    def delivered(self) -> None:
        self.began = self.began or time.time_ns()

    def record(self, count: int) -> None:
        self.recorded += count
        if self._jobs and self.recorded >= self._jobs and not self.ended:
            self.ended = time.time_ns()
            self.finished.set()

    async def tick(self) -> None:
        while True:
            say("tick", at=time.time_ns(), jobs=self.recorded)
            await asyncio.sleep(_TICK_SECONDS)


class _Session:
    """Reads on one side, and acknowledges on the other what has come in meanwhile."""

    def __init__(self, address: str, queues: Sequence[str], max_in_flight: int, tally: _Tally) -> None:
        self._address = address
        self._request = SubscribeRequest(queues=queues, max_in_flight=max_in_flight)
        self._tally = tally
        self._handles: list[str] = []
        self._sequence = 0
        self._id = ""
        self._due = asyncio.Event()
        self.opened = asyncio.Event()

    async def run(self) -> None:
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            stub: QueueServiceAsyncStub = QueueServiceStub(channel)
            acks = asyncio.create_task(self._acknowledge(stub))
            try:
                async for message in stub.Subscribe(self._request):
                    self._read(message)
                raise RuntimeError("the server ended the stream")
            except asyncio.CancelledError:
                # Leaves in order: what it holds goes back at once.
                await stub.Ack(AckRequest(session_id=self._id, close_session=True))
                raise
            finally:
                acks.cancel()

    def _read(self, message: SubscribeResponse) -> None:
        self._sequence = message.sequence
        if message.HasField("deliveries"):
            self._tally.delivered()
            self._handles += [delivery.handle for delivery in message.deliveries.deliveries]
        elif message.HasField("opened"):
            self._id = message.opened.session_id
            self.opened.set()
        self._due.set()

    async def _acknowledge(self, stub: QueueServiceAsyncStub) -> None:
        while True:
            await self._due.wait()
            handles, self._handles = self._handles[:_ITEMS_PER_ACK], self._handles[_ITEMS_PER_ACK:]
            if not self._handles:
                self._due.clear()
            items = [AckItem(handle=handle, complete=_COMPLETE) for handle in handles]
            answer = await stub.Ack(AckRequest(session_id=self._id, last_sequence=self._sequence, items=items))
            self._tally.record(sum(result.status == ACK_STATUS_APPLIED for result in answer.results))


async def work(address: str, jobs: int, streams: int, queues: int, max_in_flight: int) -> None:
    gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
    tally = _Tally(jobs)

    async def open_session(number: int, group: asyncio.TaskGroup) -> asyncio.Task[None]:
        mine = [queue_name(queue) for queue in range(number % queues, queues, streams)]
        session = _Session(address, mine, max_in_flight, tally)
        async with gate:
            running = group.create_task(session.run())
            await session.opened.wait()
        return running

    async with asyncio.TaskGroup() as group:
        sessions = await asyncio.gather(*(open_session(number, group) for number in range(streams)))
        say("ready")
        ticking = group.create_task(tally.tick())
        await tally.finished.wait()
        say("done", began=tally.began, ended=tally.ended, jobs=tally.recorded)
        for task in [ticking, *sessions]:
            task.cancel()
    await _told_to_end()


async def _told_to_end() -> None:
    """Until SIGTERM: who reads the log stops the process, and must not meet one that is about to end by itself."""
    await asyncio.Event().wait()


def main(address: str, part: str, *given: str) -> None:
    numbers = [int(number) for number in given]
    if part == "publish":
        jobs, batch, tasks, queues, rate = numbers if len(numbers) == 5 else [*numbers, 0]
        asyncio.run(play(publish(address, jobs, batch, tasks, queues, rate)))
    else:
        jobs, streams, queues, max_in_flight = numbers
        asyncio.run(play(work(address, jobs, streams, queues, max_in_flight)))


if __name__ == "__main__":
    main(*sys.argv[1:])
