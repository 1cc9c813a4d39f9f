"""A queue of a largest depth: what would be more is refused, in Publish and in SQL, and what comes back is not."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import grpc
import psycopg
import pytest

from jobwire import Client, NewJob
from jobwire import QueueFull as Full
from jobwire.v1.admin_service_pb2 import CreateQueueRequest, GetQueueRequest, Queue, UpdateQueueRequest
from jobwire.v1.queue_service_pb2 import AckItem, JobSpec, PublishRequest, Release
from tests.api.conftest import Api, Eye, Serve
from tests.api.refusals import Refusal, refused
from tests.api.worker import Worker, publish


async def limited(api: Api, name: str, most: int) -> None:
    answer = await api.admin.CreateQueue(CreateQueueRequest(queue=Queue(name=name, max_depth=most)))
    assert answer.queue.max_depth == most


def specs(count: int) -> list[JobSpec]:
    return [JobSpec(id=str(uuid4())) for _ in range(count)]


async def full(api: Api, queue: str, count: int = 1) -> Refusal:
    answer = await refused(api.queue.Publish(PublishRequest(queue=queue, jobs=specs(count))))
    assert (answer.code, answer.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert answer.retry_after == 1.0
    return answer


async def waiting(api: Api, queue: str) -> int:
    counts = (await api.admin.GetQueue(GetQueueRequest(name=queue))).queue.counts
    return counts.ready + counts.scheduled


async def until_published(api: Api, queue: str, count: int = 1) -> None:
    """Repeats a call until there is room for it."""
    request = PublishRequest(queue=queue, jobs=specs(count))
    async with asyncio.timeout(60):
        while True:
            try:
                await api.queue.Publish(request)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_call_without_room_stores_nothing(api: Api) -> None:
    await limited(api, "small", 5)
    await publish(api, 3, queue="small")
    assert "5 may wait" in (await full(api, "small", 3)).message
    await publish(api, 1, queue="small", start_in=timedelta(hours=1))
    await publish(api, 1, queue="small")
    await full(api, "small")
    assert await waiting(api, "small") == 5


async def test_what_is_stored_already_is_known_in_a_full_queue_too(api: Api) -> None:
    await limited(api, "repeated", 2)
    request = PublishRequest(queue="repeated", jobs=specs(2))
    assert [result.created for result in (await api.queue.Publish(request)).results] == [True, True]
    assert [result.created for result in (await api.queue.Publish(request)).results] == [False, False]
    request.jobs.extend(specs(1))
    answer = await refused(api.queue.Publish(request))
    assert answer.reason == "QUEUE_FULL"


async def test_jobs_that_leave_make_room(api: Api) -> None:
    await limited(api, "moving", 2)
    await publish(api, 2, queue="moving")
    await full(api, "moving")
    async with Worker(api, "moving", max_in_flight=2) as worker:
        deliveries = await worker.receive(2)
        await until_published(api, "moving", 2)
        # What comes back needs no room.
        await worker.ack(*(AckItem(handle=delivery.handle, release=Release()) for delivery in deliveries))
        await worker.ack()
    async with asyncio.timeout(60):
        while await waiting(api, "moving") != 4:
            await asyncio.sleep(0.05)
    await full(api, "moving")


async def test_more_than_ever_fits_is_the_callers_mistake(api: Api) -> None:
    await limited(api, "tiny", 2)
    answer = await refused(api.queue.Publish(PublishRequest(queue="tiny", jobs=specs(3))))
    assert (answer.code, answer.place) == (grpc.StatusCode.INVALID_ARGUMENT, "jobs")
    assert await waiting(api, "tiny") == 0


async def test_calls_in_one_group_have_fates_of_their_own(api: Api) -> None:
    await limited(api, "shared", 10)
    calls = [api.queue.Publish(PublishRequest(queue="shared", jobs=specs(4))) for _ in range(5)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 2
    assert await waiting(api, "shared") == 8


async def test_a_bound_is_raised_and_lifted(api: Api) -> None:
    await limited(api, "growing", 1)
    await publish(api, queue="growing")
    await full(api, "growing")
    await api.admin.UpdateQueue(UpdateQueueRequest(queue=Queue(name="growing", max_depth=2)))
    await publish(api, queue="growing")
    await full(api, "growing")
    answer = await api.admin.UpdateQueue(UpdateQueueRequest(queue=Queue(name="growing", max_data_bytes=9)))
    assert answer.queue.max_depth == 2
    await api.admin.UpdateQueue(UpdateQueueRequest(queue=Queue(name="growing", max_depth=0)))
    await publish(api, 10, queue="growing")


async def test_another_replica_counts_what_is_there(serve: Serve) -> None:
    async with serve() as one, serve() as other:
        await limited(one, "work", 3)
        await publish(one, 3)
        await full(other, "work")


async def test_sql_keeps_the_bound(api: Api, shared_eye: Eye) -> None:
    await limited(api, "insql", 2)
    first = shared_eye.run("SELECT {}.publish('insql', '1')")
    [(known,)] = shared_eye.run(f"SELECT {{}}.publish('insql', '1', '{{\"start_in\": 60, \"id\": \"{uuid4()}\"}}')")
    for options in ("{ }", '{"start_in": 60}'):
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match="is full: 2 jobs may wait") as caught:
            shared_eye.run(f"SELECT {{}}.publish('insql', '1', '{options}')")
        assert caught.value.sqlstate == "53400" and "max_depth" in (caught.value.diag.message_hint or "")
    assert shared_eye.run(f"SELECT {{}}.publish('insql', '1', '{{\"id\": \"{known}\"}}')") == [(known,)]
    assert first and await waiting(api, "insql") == 2


async def test_a_client_waits_for_room_within_its_time(api: Api) -> None:
    await limited(api, "client", 5)
    async with Client(api.server.address, timeout=60) as client, Client(api.server.address, timeout=1) as hasty:
        # Five times as many as fit at once, published by as many tasks: calls shrink to what there is room for.
        publishing = asyncio.gather(*(client.publish("client", n) for n in range(25)))
        async with Worker(api, "client", max_in_flight=25) as worker:
            assert len(await worker.receive(25)) == 25
            await publishing
            # It has no credits left, so these stay.
            await until_published(api, "client", 5)
            for attempt in (hasty.publish("client", 1), hasty.publish_many("client", [NewJob(1)])):
                with pytest.raises(Full, match="may wait"):
                    await attempt
        info = await client.admin.update_queue("client", max_depth=7)
        assert (info.max_depth, (await client.admin.create_queue("client", max_depth=1)).max_depth) == (7, 7)
