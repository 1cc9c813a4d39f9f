"""Who calls Jobwire while its replicas are replaced: publishers with our client, and one who repeats nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc.aio

from jobwire import Client
from jobwire.v1 import queue_service_pb2 as pb
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub

from .cluster import Cluster

QUEUE = "work"


@dataclass
class Publishers:
    """Publish and look, several at a time; a call that fails for good fails the test."""

    target: str
    ids: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def busy(self, tasks: int = 3, pause: float = 0.2) -> AsyncIterator[None]:
        """Calls all the time inside."""
        async with Client(self.target) as client:

            async def publish() -> None:
                while not done.is_set():
                    published = await client.publish(QUEUE, {"number": len(self.ids)})
                    self.ids.append(published.job_id)
                    await client.get_job(published.job_id, queue=QUEUE)
                    await asyncio.sleep(pause)

            done = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for _ in range(tasks):
                    group.create_task(publish())
                yield
                done.set()


@dataclass
class Stranger:
    """Makes single calls on new connections to the addresses that the world knows, and repeats none."""

    cluster: Cluster
    answered: int = 0
    refused: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Calls all the time inside."""
        calling = asyncio.create_task(self._call_all_the_time())
        try:
            yield
        finally:
            calling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await calling

    async def _call_all_the_time(self) -> None:
        while True:
            if known := self.cluster.known:
                await self._call(random.choice(known))
            await asyncio.sleep(0.1)

    async def _call(self, address: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"{address}:50051", options=options) as channel:
            try:
                # In a queue of its own: nobody works on it.
                await QueueServiceStub(channel).Publish(
                    pb.PublishRequest(queue="strange", jobs=[pb.JobSpec(data="{}")]), timeout=10
                )
                self.answered += 1
            except grpc.aio.AioRpcError as error:
                self.refused.append(f"{address}: {error.code().name} {error.details()}")
