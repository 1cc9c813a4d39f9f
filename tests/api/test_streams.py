"""Subscribe on the wire: what comes first and last, how it is counted and split."""

from __future__ import annotations

from uuid import UUID

import grpc
from google.protobuf.duration_pb2 import Duration

from jobwire.v1.admin_service_pb2 import CreateQueueRequest, Queue
from jobwire.v1.job_pb2 import JobOptions
from jobwire.v1.queue_service_pb2 import (
    ACK_STATUS_APPLIED,
    AckItem,
    GetJobRequest,
    JobSpec,
    PublishRequest,
    Release,
)

from .conftest import Api
from .refusals import read
from .worker import Worker, publish

MIB = 2**20


async def test_opened_comes_first_with_the_terms_granted(api: Api) -> None:
    await publish(api, queue="terms")
    async with Worker(
        api, "terms", max_in_flight=7, heartbeat_interval=Duration(seconds=9, nanos=1), resume_grace=Duration(seconds=3)
    ) as worker:
        await worker.receive(1)
        first = worker.messages[0]
        assert first.WhichOneof("event") == "opened" and first.sequence == 1
        opened = first.opened
        assert UUID(opened.session_id) and (opened.epoch, opened.resumed) == (1, False)
        assert not opened.lost and opened.max_in_flight == 7
        # Durations are kept in milliseconds, rounded up.
        assert opened.heartbeat_interval == Duration(seconds=9, nanos=1_000_000)
        assert opened.resume_grace == Duration(seconds=3)
    async with Worker(api, "terms") as plain:
        opened = plain.opened
        assert (opened.max_in_flight, opened.heartbeat_interval.seconds, opened.resume_grace.seconds) == (1, 5, 15)


async def test_a_delivery_carries_the_job_as_published(api: Api) -> None:
    spec = JobSpec(
        data=' {"b" : [1.0, "\\u00e9é"],\n"a":1e2}',
        priority=-5,
        headers={"traceparent": "00-é", "Empty": ""},
        options=JobOptions(retry_limit=7, expire_in=Duration(seconds=61, nanos=500_000_000)),
    )
    [result] = (await api.queue.Publish(PublishRequest(queue="exact", jobs=[spec]))).results
    async with Worker(api, "exact") as worker:
        [delivery] = await worker.receive(1)
        assert (delivery.queue, delivery.job_id, delivery.data) == ("exact", result.job_id, spec.data)
        assert dict(delivery.headers) == dict(spec.headers) and delivery.priority == -5
        assert (delivery.attempt, delivery.retry_count, delivery.retry_limit) == (1, 0, 7)
        assert delivery.expire_in == spec.options.expire_in
        job = (await api.queue.GetJob(GetJobRequest(job_id=result.job_id))).job
        assert job.create_time == delivery.create_time
        assert (job.data, dict(job.headers), job.priority) == (spec.data, dict(spec.headers), -5)
        assert (job.options.retry_limit, job.options.expire_in) == (7, spec.options.expire_in)
        # What was not said is filled in, from the queue and the defaults.
        assert job.options.retry_backoff and job.options.retention.ToSeconds() == 7 * 86_400


async def test_an_empty_payload_is_null(api: Api) -> None:
    await publish(api, queue="void", data="")
    async with Worker(api, "void") as worker:
        assert [delivery.data for delivery in await worker.receive(1)] == ["null"]


async def test_events_are_counted_from_one_without_gaps(api: Api) -> None:
    async with Worker(api, "counted", heartbeat_interval=Duration(seconds=1)) as worker:
        for number in range(1, 4):
            await publish(api, queue="counted")
            await worker.receive(number)
            assert await worker.complete(worker.deliveries[-1]) == [ACK_STATUS_APPLIED]
        await worker.until(lambda: worker.events("heartbeat"))
        assert [message.sequence for message in worker.messages] == list(range(1, len(worker.messages) + 1))


async def test_credits_bound_what_is_unfinished(api: Api) -> None:
    await publish(api, 5, queue="bounded")
    async with Worker(api, "bounded", max_in_flight=2) as worker:
        for settled in range(3):
            await worker.receive(min(2 + settled, 5))
            assert len(worker.deliveries) == 2 + settled
            assert await worker.complete(worker.deliveries[settled]) == [ACK_STATUS_APPLIED]
        await worker.receive(5)
        assert [delivery.data for delivery in worker.deliveries] == [f'{{"n":{n}}}' for n in range(5)]


async def test_deliveries_of_more_than_1_mib_are_split(api: Api) -> None:
    await api.admin.CreateQueue(CreateQueueRequest(queue=Queue(name="large", max_data_bytes=524_288)))
    payloads = [f'"{n}{"x" * size}"' for n, size in enumerate([524_000, 300_000, 524_200, 10, 524_285, 524_200])]
    for payload in payloads:
        await publish(api, queue="large", data=payload)
    wide = {f"{n:02}" + "\U0001f600" * 98: "\U0001f600" * 1_000 for n in range(20)}
    for _ in range(12):
        payloads.append('"' + "é" * 200_000 + '"')
        await publish(api, queue="large", data=payloads[-1], headers=wide)
    async with Worker(api, "large", max_in_flight=100) as worker:
        await worker.receive(len(payloads))
        assert [delivery.data for delivery in worker.deliveries] == payloads
        groups = worker.events("deliveries")
        assert len(groups) >= 3 and all(group.ByteSize() <= MIB for group in groups)
        assert [message.sequence for message in worker.messages] == list(range(1, len(worker.messages) + 1))
        assert await worker.complete(*worker.deliveries) == [ACK_STATUS_APPLIED] * len(payloads)


async def test_many_small_deliveries_travel_together(api: Api) -> None:
    await publish(api, 1_000, queue="crowd")
    async with Worker(api, "crowd", max_in_flight=1_000) as worker:
        await worker.receive(1_000)
        assert len(worker.events("deliveries")) <= 20
        assert len({delivery.handle for delivery in worker.deliveries}) == 1_000


async def test_heartbeats_answered_keep_a_session_and_silence_loses_it(api: Api) -> None:
    interval = Duration(seconds=1)
    await publish(api, 2, queue="beating")
    async with (
        Worker(api, "beating", heartbeat_interval=interval) as answering,
        Worker(api, "beating", heartbeat_interval=interval, answers_heartbeats=False) as silent,
    ):
        await answering.receive(1)
        [lost] = await silent.receive(1)
        await silent.finish()
        assert silent.error is not None
        ended = read(silent.error)
        assert (ended.code, ended.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_LOST")
        assert len(silent.events("heartbeat")) >= 3
        # What the silent one held goes to the other, which outlives it.
        await answering.complete(answering.deliveries[0])
        await answering.receive(2)
        assert answering.deliveries[1].job_id == lost.job_id and answering.deliveries[1].attempt == 2
        assert len(answering.events("heartbeat")) >= 3 and not answering.ended
        assert (await answering.report()).session_alive
        assert not (await silent.report()).session_alive


async def test_close_session_ends_the_stream_in_order(api: Api) -> None:
    await publish(api, 2, queue="closing")
    async with Worker(api, "closing", max_in_flight=2) as worker:
        first, second = await worker.receive(2)
        release = AckItem(handle=first.handle, release=Release(delay=Duration(seconds=600)))
        answer = await worker.report(release, close_session=True)
        assert [result.status for result in answer.results] == [ACK_STATUS_APPLIED]
        await worker.finish()
        assert worker.error is None and await worker.call.code() is grpc.StatusCode.OK
        assert not (await worker.report()).session_alive
    async with Worker(api, "closing") as next_one:
        [again] = await next_one.receive(1)
        assert (again.job_id, again.attempt, again.retry_count) == (second.job_id, 2, 0)
