"""The database goes away and comes back: the process lives, says so everywhere, and recovers by itself."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from structlog.typing import EventDict

from jobwire.v1.admin_service_pb2 import CreateQueueRequest, ListQueuesRequest, Queue
from jobwire.v1.job_pb2 import JOB_STATE_COMPLETED
from jobwire.v1.queue_service_pb2 import (
    ACK_STATUS_APPLIED,
    AckItem,
    AckRequest,
    Complete,
    GetJobRequest,
    JobSpec,
    PublishRequest,
    SubscribeRequest,
)
from jobwire_server.app import Server
from jobwire_server.embedded import EmbeddedPostgres

from .conftest import Api, connected, serving, settings
from .http_client import get
from .refusals import Refusal, refused
from .worker import Worker, publish


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedPostgres]:
    # Not below pytest's own folder, which PostgreSQL's user may not enter.
    with tempfile.TemporaryDirectory(prefix="jobwire-test-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        with EmbeddedPostgres(Path(folder) / "pg", settings={"fsync": "off"}) as postgres:
            yield postgres


@pytest.fixture
async def own(shared: EmbeddedPostgres) -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL that a test may stop."""
    yield shared
    await start(shared)


async def stop(postgres: EmbeddedPostgres) -> None:
    await asyncio.to_thread(postgres.stop)


async def start(postgres: EmbeddedPostgres) -> None:
    await asyncio.to_thread(postgres.start)


def says_try_again(answer: Refusal, postgres: EmbeddedPostgres) -> None:
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert answer.retry_after is not None and 0 < answer.retry_after <= 60
    assert "repeat the call" in answer.message
    url = urlsplit(postgres.dsn)
    for secret in (str(url.port), str(url.password), "psycopg", "connection to server", "pool"):
        assert secret not in answer.raw


async def ready_to(api: Api) -> tuple[int, int]:
    """The status codes of the probes: alive, ready."""
    alive, ready = await asyncio.gather(get(api.server, "/livez"), get(api.server, "/readyz"))
    return alive.status, ready.status


@pytest.fixture
async def api(own: EmbeddedPostgres) -> AsyncIterator[Api]:
    async with serving(own.dsn, f"test_{uuid4().hex[:10]}") as api:
        yield api


async def test_all_recovers_by_itself(
    api: Api, own: EmbeddedPostgres, logged: list[EventDict], caplog: pytest.LogCaptureFixture
) -> None:
    await publish(api, 2)
    async with Worker(api, max_in_flight=3, heartbeat_interval=Duration(seconds=1)) as worker:
        before = await worker.receive(2)
        await stop(own)
        await api.until_health("NOT_SERVING")
        assert await ready_to(api) == (200, 503)
        assert (await get(api.server, "/readyz")).json["reason"] == "the database does not answer"
        assert await api.health_of("jobwire.v1.QueueService") == "NOT_SERVING"

        ack = AckRequest(items=[AckItem(handle=before[0].handle, complete=Complete(output="1"))])
        calls = {
            "Publish": api.queue.Publish(PublishRequest(queue="work", jobs=[JobSpec()])),
            "Publish elsewhere": api.queue.Publish(PublishRequest(queue="elsewhere", jobs=[JobSpec()])),
            "Subscribe": api.queue.Subscribe(SubscribeRequest(queues=["work"])).read(),
            "GetJob": api.queue.GetJob(GetJobRequest(job_id=before[0].job_id)),
            "Ack": api.queue.Ack(ack),
            "CreateQueue": api.admin.CreateQueue(CreateQueueRequest(queue=Queue(name="new"))),
            "ListQueues": api.admin.ListQueues(ListQueuesRequest()),
        }
        for answer in await asyncio.gather(*map(refused, calls.values())):
            says_try_again(answer, own)
        # A wish that breaks a rule is told so all the same, where no look at the database is needed for it.
        assert (await refused(api.queue.GetJob(GetJobRequest(job_id="?")))).place == "job_id"

        # The stream goes on, and its heartbeats; their answers are taken.
        beats = len(worker.events("heartbeat"))
        await worker.until(lambda: len(worker.events("heartbeat")) > beats)
        assert not worker.ended

        await start(own)
        await api.until_health("SERVING")
        assert await ready_to(api) == (200, 200)
        assert [result.status for result in (await api.queue.Ack(ack)).results] == [ACK_STATUS_APPLIED]
        [job_id] = await publish(api)
        await worker.until(lambda: job_id in {delivery.job_id for delivery in worker.deliveries})
        # What was delivered before is still held, and not delivered again.
        assert [delivery.attempt for delivery in worker.deliveries] == [1, 1, 1]
        assert await worker.complete(*worker.deliveries[1:]) == [ACK_STATUS_APPLIED] * 2
        for delivery in worker.deliveries:
            job = (await api.queue.GetJob(GetJobRequest(job_id=delivery.job_id))).job
            assert (job.state, job.attempt, job.loss_count) == (JOB_STATE_COMPLETED, 1, 0)
    # Warnings tell of it; an error would be a bug of ours.
    assert {line["log_level"] for line in logged} == {"debug", "info", "warning"}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_waiting_get_job_survives_or_is_told(api: Api, own: EmbeddedPostgres) -> None:
    """A wait that is under way when the database goes: it answers in the end, or says to try again."""
    [job_id] = await publish(api)
    request = GetJobRequest(queue="work", job_id=job_id, wait=Duration(seconds=60), until_finished=True)
    waiting = asyncio.ensure_future(api.queue.GetJob(request))
    await stop(own)
    await api.until_health("NOT_SERVING")
    await start(own)
    await api.until_health("SERVING")
    async with Worker(api) as worker:
        await worker.complete(*(await worker.receive(1)))
    try:
        job = (await waiting).job
    except grpc.aio.AioRpcError:
        says_try_again(await refused(waiting), own)
        job = (await api.queue.GetJob(request)).job
    assert job.state == JOB_STATE_COMPLETED


async def test_a_server_that_starts_before_its_database(own: EmbeddedPostgres) -> None:
    await stop(own)
    async with Server(settings(own.dsn, f"test_{uuid4().hex[:10]}")) as server, connected(server) as api:
        for service in ("", "jobwire.v1.QueueService", "jobwire.v1.AdminService"):
            assert await api.health_of(service) == "NOT_SERVING"
        assert await ready_to(api) == (200, 503)
        assert (await get(server, "/readyz")).json["reason"] == "waiting for the database"
        says_try_again(await refused(api.queue.Publish(PublishRequest(queue="work", jobs=[JobSpec()]))), own)
        says_try_again(await refused(api.queue.Subscribe(SubscribeRequest(queues=["work"])).read()), own)
        await start(own)
        await server.started()
        for service in ("", "jobwire.v1.QueueService", "jobwire.v1.AdminService"):
            await api.until_health("SERVING", service)
        assert await ready_to(api) == (200, 200)
        await publish(api)


async def test_a_server_whose_database_is_away_stops_in_order(api: Api, own: EmbeddedPostgres) -> None:
    async with Worker(api) as worker:
        await stop(own)
        await api.until_health("NOT_SERVING")
        async with asyncio.timeout(60):
            await api.server.stop()
        await worker.finish()
        assert worker.error is None or worker.error.code() is grpc.StatusCode.UNAVAILABLE
