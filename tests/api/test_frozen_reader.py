"""A subscriber that never reads: it costs what its credits allow, and nobody waits for it."""

from __future__ import annotations

import asyncio

from google.protobuf.duration_pb2 import Duration

from jobwire.v1.queue_service_pb2 import SubscribeRequest
from tests.api.conftest import Serve, connected
from tests.api.worker import Worker, publish

CREDITS = 100
JOBS = 280


async def complete(worker: Worker, count: int) -> None:
    """Completes what arrives, until so many have arrived in all."""
    done = 0
    while done < count:
        fresh = (await worker.receive(done + 1))[done:]
        await worker.complete(*fresh)
        done += len(fresh)


async def test_a_reader_that_never_reads(serve: Serve) -> None:
    async with serve() as api, connected(api.server) as frozen:
        broker = api.server._broker
        grace = Duration(seconds=60)
        call = frozen.queue.Subscribe(
            SubscribeRequest(queues=["work"], max_in_flight=CREDITS, heartbeat_interval=grace, worker="frozen")
        )
        async with asyncio.timeout(60):
            while not broker.stats().sessions:
                await asyncio.sleep(0.01)
        [session] = broker._book._sessions.values()
        text = f'"{"x" * 60_000}"'
        # More than it may hold; of that it is given only what a connection takes, and a little more.
        ids = [job_id for _ in range(JOBS // 40) for job_id in await publish(api, 40, data=text)]
        async with asyncio.timeout(60):
            while not (session.stream and session.stream.behind):
                await asyncio.sleep(0.01)
        async with Worker(api, max_in_flight=40, heartbeat_interval=grace) as worker:
            held = len(session.in_flight)
            assert 0 < held < CREDITS
            await complete(worker, JOBS - held)
            await publish(api)
            await complete(worker, JOBS - held + 1)
            waiting = sum(len(event.deliveries) for event in session.stream.unwritten())
            assert len(session.in_flight) == held and 0 < waiting <= held
            # It leaves: what never reached its connection is given back at once; what was just on its way may be there.
            call.cancel()
            await complete(worker, JOBS - held + 1 + waiting)
        assert len({delivery.job_id for delivery in worker.deliveries} & set(ids)) == JOBS - held + waiting


async def test_a_slow_reader_gets_everything_in_the_end(serve: Serve) -> None:
    async with serve() as api, connected(api.server) as slow:
        await publish(api, 40, data=f'"{"x" * 60_000}"')
        ids = set(await publish(api, 40, data=f'"{"x" * 60_000}"'))
        call = slow.queue.Subscribe(SubscribeRequest(queues=["work"], max_in_flight=CREDITS, worker="slow"))
        # It asks for the next message only when the line behind it is full.
        received: list[str] = []
        session = None
        async with asyncio.timeout(60):
            while len(received) < 80:
                message = await call.read()
                received += [delivery.job_id for delivery in message.deliveries.deliveries]
                session = session or next(iter(api.server._broker._book._sessions.values()))
                await asyncio.sleep(0.05)
        assert len(set(received)) == 80 and ids < set(received)
        assert session is not None and session.stream is not None and not session.stream.behind
        call.cancel()
