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
        # More than a connection takes while nobody reads.
        ids = [job_id for _ in range(JOBS // 40) for job_id in await publish(api, 40, data=text)]
        async with Worker(api, max_in_flight=40, heartbeat_interval=grace) as worker:
            await complete(worker, JOBS - CREDITS)
            assert len(session.in_flight) == CREDITS
            assert session.stream is not None
            waiting = sum(len(event.deliveries) for event in session.stream.unwritten())
            assert 0 < waiting <= CREDITS
            await publish(api)
            await complete(worker, JOBS - CREDITS + 1)
            # It leaves: what never reached its connection is given back at once.
            call.cancel()
            await complete(worker, JOBS - CREDITS + 1 + waiting)
        assert len({delivery.job_id for delivery in worker.deliveries} & set(ids)) == JOBS - CREDITS + waiting
