"""No exception text, SQL or address reaches a client, whatever breaks; the log has it all under the request's id."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import grpc
import pytest
from structlog.typing import EventDict

from jobwire.v1.admin_service_pb2 import (
    CancelJobsRequest,
    CreateQueueRequest,
    GetQueueRequest,
    ListJobsRequest,
    ListQueuesRequest,
    Queue,
    UpdateQueueRequest,
)
from jobwire.v1.queue_service_pb2 import (
    AckItem,
    AckRequest,
    Complete,
    GetJobRequest,
    JobSpec,
    PublishRequest,
    SubscribeRequest,
)
from tests.conftest import Postgres

from .conftest import Api, Eye, Serve
from .http_client import get
from .refusals import Refusal, refused
from .worker import Worker, publish

WORDS_OF_THE_INSIDE = (
    *("psycopg", "Undefined", "relation", "does not exist", "SELECT", "INSERT", "UPDATE ", "DELETE", "LINE 1"),
    *("Traceback", 'File "', ".py", "KeyError", "live_job", "postgresql://", "asyncpg", "violates"),
)


def says_nothing(answer: Refusal, eye: Eye, postgres: Postgres) -> None:
    """An INTERNAL error with its request id, and nothing of what happened."""
    assert (answer.code, answer.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert answer.message == f"internal error, request id {answer.request_id}; report it with this id"
    assert answer.metadata == {"request_id": answer.request_id}
    assert not answer.violations and answer.retry_after is None
    url = urlsplit(postgres.dsn)
    for word in (*WORDS_OF_THE_INSIDE, eye.schema, url.password, url.port and str(url.port)):
        assert not word or word not in answer.raw, word


def is_told_in_the_log(answer: Refusal, logged: list[EventDict]) -> None:
    mine = [line for line in logged if line.get("request_id") == answer.request_id]
    [failed] = [line for line in mine if line["event"] == "a call failed unexpectedly"]
    assert failed["log_level"] == "error" and "Traceback" in failed["exception"]
    assert "psycopg" in failed["exception"]
    [call] = [line for line in mine if line["event"] == "call"]
    assert call["code"] == "INTERNAL" and call["log_level"] == "warning"


async def test_tables_that_vanish(serve: Serve, eye: Eye, postgres: Postgres, logged: list[EventDict]) -> None:
    async with serve() as api:
        [job_id, _] = await publish(api, 2)
        async with Worker(api) as worker:
            [delivery] = await worker.receive(1)
            eye.run(f'ALTER SCHEMA {{}} RENAME TO "{eye.schema}_moved"')
            done = AckItem(handle=delivery.handle, complete=Complete())
            calls = {
                "Publish": api.queue.Publish(PublishRequest(queue="work", jobs=[JobSpec(data='"private"')])),
                "Publish elsewhere": api.queue.Publish(PublishRequest(queue="other", jobs=[JobSpec()])),
                "Subscribe": api.queue.Subscribe(SubscribeRequest(queues=["work"])).read(),
                "GetJob": api.queue.GetJob(GetJobRequest(queue="work", job_id=job_id)),
                "GetJob anywhere": api.queue.GetJob(GetJobRequest(job_id=job_id)),
                "Ack": api.queue.Ack(AckRequest(items=[done])),
                "CreateQueue": api.admin.CreateQueue(CreateQueueRequest(queue=Queue(name="new"))),
                "GetQueue": api.admin.GetQueue(GetQueueRequest(name="work")),
                "ListQueues": api.admin.ListQueues(ListQueuesRequest()),
                "UpdateQueue": api.admin.UpdateQueue(UpdateQueueRequest(queue=Queue(name="work"))),
                "ListJobs": api.admin.ListJobs(ListJobsRequest(queue="work")),
                "CancelJobs": api.admin.CancelJobs(CancelJobsRequest(queue="work", job_ids=[job_id])),
            }
            answers = await asyncio.gather(*map(refused, calls.values()))
            assert len({answer.request_id for answer in answers}) == len(calls)
            for answer in answers:
                says_nothing(answer, eye, postgres)
                is_told_in_the_log(answer, logged)
        assert (await get(api.server, "/livez")).status == 200
        readiness = await get(api.server, "/readyz")
        assert not any(word in readiness.body for word in (*WORDS_OF_THE_INSIDE, eye.schema))
        eye.run(f'ALTER SCHEMA "{eye.schema}_moved" RENAME TO {{}}')
        await api.until_health("SERVING")
        assert len(await publish(api)) == 1


async def test_a_statement_that_fails_for_one_job(
    serve: Serve, eye: Eye, postgres: Postgres, logged: list[EventDict]
) -> None:
    async with serve() as api:
        eye.run("""ALTER TABLE {}.live_job ADD CONSTRAINT no_poison CHECK (data <> '"poison"')""")
        answer = await refused(api.queue.Publish(PublishRequest(queue="work", jobs=[JobSpec(data='"poison"')])))
        says_nothing(answer, eye, postgres)
        is_told_in_the_log(answer, logged)
        assert "poison" not in answer.raw
        await publish(api)


@pytest.mark.parametrize("request_id", ["my-call-7"])
async def test_the_id_is_the_clients_if_it_sends_one(
    serve: Serve, eye: Eye, logged: list[EventDict], request_id: str
) -> None:
    async with serve() as api:
        eye.run("ALTER TABLE {}.live_job ADD CHECK (false)")
        request = PublishRequest(queue="work", jobs=[JobSpec()])
        answer = await refused(api.queue.Publish(request, metadata=(("x-request-id", request_id),)))
        assert answer.request_id == request_id and request_id in answer.message
        is_told_in_the_log(answer, logged)


async def test_payloads_stay_out_of_the_log(api: Api, logged: list[EventDict]) -> None:
    """What is refused is told in the log too; of payloads only what is wrong with them."""
    await publish(api, data='{"token": "s3cret"}')
    async with Worker(api) as worker:
        [delivery] = await worker.receive(1)
        await worker.ack(AckItem(handle=delivery.handle, complete=Complete(output='"s3cret"')))
    await refused(api.queue.Publish(PublishRequest(queue="work", jobs=[JobSpec(data='{"token": s3cret}')])))
    assert logged and "s3cret" not in repr(logged)
