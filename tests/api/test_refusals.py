"""The table of errors in the contract: each line provoked, with what it tells the client to do."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from jobwire.v1.job_pb2 import JOB_STATE_COMPLETED
from jobwire.v1.queue_service_pb2 import (
    ACK_STATUS_APPLIED,
    AckRequest,
    GetJobRequest,
    JobSpec,
    PublishRequest,
    Resume,
    SubscribeRequest,
)

from .conftest import Api, Eye, Serve
from .refusals import read, refused
from .worker import Worker, publish


async def test_job_not_found(api: Api) -> None:
    job_id = str(uuid4())
    for queue in ("", "work"):
        answer = await refused(api.queue.GetJob(GetJobRequest(queue=queue, job_id=job_id)))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
        assert job_id in answer.message and answer.retry_after is None


async def test_session_lost(api: Api) -> None:
    session_id = str(uuid4())
    request = SubscribeRequest(queues=["work"], resume=Resume(session_id=session_id))
    answer = await refused(api.queue.Subscribe(request).read())
    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_LOST")
    assert session_id in answer.message and "without `resume`" in answer.message
    assert not (await api.queue.Ack(AckRequest(session_id=session_id))).session_alive


async def test_session_taken_over(api: Api) -> None:
    [job_id] = await publish(api, queue="moving")
    async with Worker(api, "moving") as old:
        [delivery] = await old.receive(1)
        resume = Resume(session_id=old.session_id, epoch=2, held=[delivery.handle, delivery.handle])
        async with Worker(api, "moving", resume=resume) as new:
            await old.finish()
            assert old.error is not None
            ended = read(old.error)
            assert (ended.code, ended.reason) == (grpc.StatusCode.ABORTED, "SESSION_TAKEN_OVER")
            late = await refused(api.queue.Subscribe(SubscribeRequest(queues=["moving"], resume=resume)).read())
            assert (late.code, late.reason) == (grpc.StatusCode.ABORTED, "SESSION_TAKEN_OVER")
            opened = new.opened
            assert (opened.session_id, opened.epoch, opened.resumed) == (old.session_id, 2, True)
            assert not opened.lost
            assert await new.complete(delivery) == [ACK_STATUS_APPLIED]
    job = (await api.queue.GetJob(GetJobRequest(job_id=job_id))).job
    assert (job.state, job.attempt) == (JOB_STATE_COMPLETED, 1)


async def test_too_many_sessions(serve: Serve) -> None:
    async with serve(max_sessions=2) as api, Worker(api), Worker(api):
        answer = await refused(api.queue.Subscribe(SubscribeRequest(queues=["work"])).read())
        assert (answer.code, answer.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS")
        assert answer.retry_after is not None and answer.retry_after > 0
        assert "2 sessions" in answer.message
        await publish(api)


async def test_queues_that_are_not_to_be_created(serve: Serve, eye: Eye) -> None:
    async with serve(create_queues=False) as api:
        before = eye.rows()
        for call in (
            api.queue.Publish(PublishRequest(queue="nowhere", jobs=[JobSpec()])),
            api.queue.Subscribe(SubscribeRequest(queues=["nowhere"])).read(),
        ):
            answer = await refused(call)
            assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
            assert "'nowhere'" in answer.message
        assert eye.rows() == before


async def test_draining(serve: Serve) -> None:
    async with serve(drain_linger=30.0) as api:
        [job_id] = await publish(api)
        async with Worker(api) as worker:
            [delivery] = await worker.receive(1)
            hurry = asyncio.Event()
            stopping = asyncio.create_task(api.server.stop(hurry))
            await worker.finish()
            answer = await refused(api.queue.Subscribe(SubscribeRequest(queues=["work"])).read())
            assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
            assert answer.retry_after is not None and answer.retry_after > 0
            # What is not a stream is served until the end, so that nothing done is lost.
            assert await worker.complete(delivery) == [ACK_STATUS_APPLIED]
            await publish(api)
            job = (await api.queue.GetJob(GetJobRequest(job_id=job_id, wait=Duration(seconds=60)))).job
            assert job.state == JOB_STATE_COMPLETED
            hurry.set()
            await stopping


@pytest.mark.parametrize("table", ["live_job"])
async def test_lock_timeout(serve: Serve, eye: Eye, table: str) -> None:
    async with serve() as api:
        await publish(api)
        with eye.connection.transaction():
            eye.run(f"LOCK TABLE {{}}.{table} IN ACCESS EXCLUSIVE MODE")
            answer = await refused(api.queue.Publish(PublishRequest(queue="work", jobs=[JobSpec()])))
        assert (answer.code, answer.reason) == (grpc.StatusCode.ABORTED, "LOCK_TIMEOUT")
        assert answer.retry_after is not None and answer.retry_after > 0
        await publish(api)


async def test_a_clients_own_request_id_is_kept(api: Api) -> None:
    metadata = (("x-request-id", "order-42/7"),)
    call = api.queue.GetJob(GetJobRequest(job_id="?"), metadata=metadata)
    assert (await refused(call)).request_id == "order-42/7"
    call = api.queue.Publish(PublishRequest(queue="work", jobs=[JobSpec()]), metadata=metadata)
    await call
    assert ("x-request-id", "order-42/7") in tuple(await call.trailing_metadata())
    for unfit in ("", "a b", "x" * 129):
        call = api.queue.GetJob(GetJobRequest(job_id="?"), metadata=(("x-request-id", unfit),))
        assert (await refused(call)).request_id not in ("", unfit)


async def test_bytes_that_are_no_message(api: Api, eye: Eye) -> None:
    surrogate = PublishRequest(queue="work", jobs=[JobSpec(data='"xyz"')]).SerializeToString()
    for method in ("QueueService/Publish", "QueueService/GetJob", "QueueService/Ack", "AdminService/CreateQueue"):
        for body in (b"\xff", b"\x0a\x05abc", b"\x0a\x01\xff", surrogate.replace(b"xyz", b"\xed\xa0\x80")):
            if method != "QueueService/Publish" and b"work" in body:
                continue
            answer = await refused(api.channel.unary_unary(f"/jobwire.v1.{method}")(body))
            assert answer.code is grpc.StatusCode.INVALID_ARGUMENT, (method, body)
            assert answer.place == "request" and method in answer.message
    answer = await refused(api.channel.unary_stream("/jobwire.v1.QueueService/Subscribe")(b"\xff").read())
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT and answer.place == "request"
