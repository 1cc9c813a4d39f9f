"""Clients as processes: `python -m bench.players ADDRESS PART …`, until SIGTERM; each logs JSON lines.

idle COUNT            so many sessions without jobs, each on a connection of its own, that answer heartbeats
busy COUNT QUEUE      so many sessions with one credit each that complete at once what they get
feed RATE QUEUE       publishes so many small jobs a second
frozen COUNT QUEUE    so many subscribers with all credits that never read what they are sent
work COUNT QUEUE      a worker of the Python client that runs so many jobs at once, a few hundredths of a second each
flood CALLS BYTES     keeps so many Publish calls of so many bytes under way; what is refused comes again when told
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from jobwire import Job, Worker
from jobwire.v1.queue_service_pb2 import (
    AckItem,
    AckRequest,
    Complete,
    JobSpec,
    PublishRequest,
    PublishResponse,
    SubscribeRequest,
)
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub

_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))
_CONNECTING_AT_ONCE = 50
_JOB_BYTES = 3_000
_FLOOD_QUEUES = 8


def say(event: str, **facts: object) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


async def _session(address: str, queue: str, opened: Callable[[], None]) -> None:
    """A session of one credit that answers heartbeats and completes what it gets."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub = QueueServiceStub(channel)
        session = ""
        async for message in stub.Subscribe(SubscribeRequest(queues=[queue], max_in_flight=1)):
            if message.HasField("opened"):
                session = message.opened.session_id
                opened()
            items = [AckItem(handle=each.handle, complete=Complete()) for each in message.deliveries.deliveries]
            if items or message.HasField("heartbeat"):
                await stub.Ack(AckRequest(session_id=session, last_sequence=message.sequence, items=items))


async def sessions(address: str, count: int, queue: str) -> None:
    gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
    missing = count
    everything = asyncio.Event()

    async def one() -> None:
        await gate.acquire()

        def opened() -> None:
            nonlocal missing
            gate.release()
            missing -= 1
            if not missing:
                everything.set()

        await _session(address, queue, opened)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())
        await everything.wait()
        say("ready")


async def feed(address: str, rate: int, queue: str) -> None:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub = QueueServiceStub(channel)
        say("ready")
        due = time.monotonic()
        while True:
            due += 0.1
            await stub.Publish(PublishRequest(queue=queue, jobs=[JobSpec(data="{}")] * max(1, rate // 10)))
            await asyncio.sleep(max(0.0, due - time.monotonic()))


def work(address: str, count: int, queue: str) -> None:
    worker = Worker(address)

    @worker.handler(queue, concurrency=count)
    async def handle(_: Job) -> None:
        await asyncio.sleep(0.02)

    say("ready")
    worker.run_forever()


async def frozen(address: str, count: int, queue: str) -> None:
    channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(count)]
    request = SubscribeRequest(queues=[queue], max_in_flight=1_000)
    request.heartbeat_interval.FromSeconds(300)
    calls = [QueueServiceStub(channel).Subscribe(request) for channel in channels]
    await asyncio.gather(*(call.wait_for_connection() for call in calls))
    say("ready")
    await asyncio.Event().wait()


async def flood(address: str, calls: int, size: int) -> None:
    # Elsewhere, in truth: producers must not take the processor from the server that is measured.
    os.nice(10)
    count = min(1_000, max(1, size // _JOB_BYTES))
    text = json.dumps(secrets.token_hex((size // count - 20) // 2))
    jobs = [JobSpec(data=text)] * count
    requests = [PublishRequest(queue=f"flood-{n}", jobs=jobs).SerializeToString() for n in range(_FLOOD_QUEUES)]
    channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(_FLOOD_QUEUES)]
    ended: Counter[str] = Counter()

    async def one(number: int) -> None:
        method = channels[number % _FLOOD_QUEUES].unary_unary(
            "/jobwire.v1.QueueService/Publish", response_deserializer=PublishResponse.FromString
        )
        while True:
            try:
                await method(requests[number % _FLOOD_QUEUES], timeout=60)
                ended["stored"] += 1
            except grpc.aio.AioRpcError as error:
                ended[error.code().name] += 1
                await asyncio.sleep(_told(error))

    began = time.monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(calls):
                group.create_task(one(number))
            say("ready", in_flight=calls * len(requests[0]))
    finally:
        stored = ended["stored"] * len(requests[0])
        say("flooded", seconds=time.monotonic() - began, stored_bytes=stored, jobs=ended["stored"] * count, **ended)


def _told(error: grpc.aio.AioRpcError) -> float:
    """When to come again."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    retry = RetryInfo()
    for detail in status.details if status else ():
        if detail.Unpack(retry):
            return retry.retry_delay.ToMilliseconds() / 1_000
    return 1.0


async def play(part: Awaitable[None]) -> None:
    task = asyncio.ensure_future(part)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main(address: str, part: str, number: str, what: str = "") -> None:
    if part == "work":
        # It has signals and a loop of its own.
        work(address, int(number), what)
        return
    parts: dict[str, Callable[[], Awaitable[None]]] = {
        "idle": lambda: sessions(address, int(number), "idle"),
        "busy": lambda: sessions(address, int(number), what),
        "feed": lambda: feed(address, int(number), what),
        "frozen": lambda: frozen(address, int(number), what),
        "flood": lambda: flood(address, int(number), int(what)),
    }
    asyncio.run(play(parts[part]()))


if __name__ == "__main__":
    main(*sys.argv[1:])
