"""A replica is killed right after it acknowledged a checkpoint: another one hands it to the next attempt."""

from __future__ import annotations

from collections.abc import Callable

import grpc.aio
import pytest

from jobwire.v1 import queue_service_pb2 as pb
from jobwire.v1.job_pb2 import Progress
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from tests.system.conftest import ServerProcess


async def next_delivery(call: grpc.aio.UnaryStreamCall[pb.SubscribeRequest, pb.SubscribeResponse]) -> pb.Delivery:
    async for message in call:
        for delivery in message.deliveries.deliveries:
            return delivery
    raise AssertionError("the stream ended")


@pytest.mark.parametrize("round_", range(3))
async def test_what_was_acknowledged_is_there_after_a_crash(server: Callable[..., ServerProcess], round_: int) -> None:
    graces = {"owner_grace": 1, "renew_interval": 0.1, "poll_interval": 0.1}
    here, there = server(**graces), server(**graces)
    async with grpc.aio.insecure_channel(here.address) as to_here, grpc.aio.insecure_channel(there.address) as to_there:
        first, second = QueueServiceStub(to_here), QueueServiceStub(to_there)
        await first.Publish(pb.PublishRequest(queue="work", jobs=[pb.JobSpec(data="1")]))
        job = await next_delivery(first.Subscribe(pb.SubscribeRequest(queues=["work"])))
        extend = pb.Extend(progress=Progress(fraction=0.5, checkpoint=f'{{"page": {round_}}}'))
        answer = await first.Ack(pb.AckRequest(items=[pb.AckItem(handle=job.handle, extend=extend)]))
        here.kill()
        assert answer.results[0].status == pb.ACK_STATUS_APPLIED
        call = second.Subscribe(pb.SubscribeRequest(queues=["work"]))
        again = await next_delivery(call)
        assert (again.job_id, again.attempt, again.checkpoint) == (job.job_id, 2, f'{{"page": {round_}}}')
        done = pb.AckItem(handle=again.handle, complete=pb.Complete())
        assert (await second.Ack(pb.AckRequest(items=[done]))).results[0].status == pb.ACK_STATUS_APPLIED
        call.cancel()
