"""A batch is stored whole or not at all, and what is wrong with one harms no other."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import grpc
from structlog.typing import EventDict

from jobwire.v1.admin_service_pb2 import ListJobsRequest
from jobwire.v1.queue_service_pb2 import (
    ACK_STATUS_APPLIED,
    NOT_CREATED_REASON_DUPLICATE_ID,
    AckItem,
    AckRequest,
    Complete,
    JobSpec,
    PublishRequest,
    PublishResponse,
)

from .conftest import Api, Eye, Serve
from .refusals import Refusal, refused
from .worker import Worker, publish

BATCHES = 40
JOBS = 5


def batch(number: int, spoilt: str | None = None) -> PublishRequest:
    """Some jobs that say where they belong; the last but one is the spoilt one."""
    specs = [JobSpec(id=str(UUID(int=1000 * (number + 1) + n)), data=f'"{number}/{n}"') for n in range(JOBS)]
    if spoilt is not None:
        specs[-2].data = spoilt
    return PublishRequest(queue="work", jobs=specs)


async def stored(api: Api) -> set[str]:
    answer = await api.admin.ListJobs(ListJobsRequest(queue="work", page_size=500))
    assert not answer.next_page_token
    return {job.data for job in answer.jobs}


async def publish_all(api: Api, spoilt: str) -> list[Refusal]:
    """Publishes all batches at once, each fourth with a spoilt job; returns how those were refused.

    Fails unless the others are stored, and nothing else.
    """

    async def one(number: int) -> PublishResponse | Refusal:
        if number % 4:
            return await api.queue.Publish(batch(number))
        return await refused(api.queue.Publish(batch(number, spoilt)))

    answers = await asyncio.gather(*map(one, range(BATCHES)))
    good = [number for number in range(BATCHES) if number % 4]
    for number in good:
        assert [result.created for result in answers[number].results] == [True] * JOBS
    assert await stored(api) == {f'"{number}/{n}"' for number in good for n in range(JOBS)}
    return [answer for answer in answers if isinstance(answer, Refusal)]


async def test_a_batch_that_breaks_a_rule_harms_no_other(serve: Serve) -> None:
    async with serve() as api:
        refusals = await publish_all(api, "not JSON")
        assert len(refusals) == BATCHES // 4
        assert {(refusal.code, refusal.place) for refusal in refusals} == {
            (grpc.StatusCode.INVALID_ARGUMENT, f"jobs[{JOBS - 2}].data")
        }


async def test_a_batch_that_the_database_refuses_harms_no_other(
    serve: Serve, eye: Eye, logged: list[EventDict]
) -> None:
    """It gets as far as the statement that it shares with others, which then fails for all."""
    async with serve() as api:
        eye.run("""ALTER TABLE {}.live_job ADD CHECK (data <> '"poison"')""")
        refusals = await publish_all(api, '"poison"')
        assert len(refusals) == BATCHES // 4
        assert {refusal.code for refusal in refusals} == {grpc.StatusCode.INTERNAL}
        failed = [line for line in logged if line["event"] == "a call failed unexpectedly"]
        assert {line["request_id"] for line in failed} == {refusal.request_id for refusal in refusals}
        # Without the spoilt job they are stored like any other: nothing of them had stayed.
        for number in range(0, BATCHES, 4):
            answer = await api.queue.Publish(batch(number))
            assert [result.created for result in answer.results] == [True] * JOBS


async def test_an_ack_that_breaks_a_rule_harms_no_other(api: Api) -> None:
    await publish(api, 20)
    async with Worker(api, max_in_flight=20) as worker:
        deliveries = await worker.receive(20)

        async def ack(number: int) -> object:
            items = [AckItem(handle=deliveries[number].handle, complete=Complete())]
            if number % 4:
                return await api.queue.Ack(AckRequest(items=items))
            return await refused(api.queue.Ack(AckRequest(items=[*items, AckItem(handle="?")])))

        answers = await asyncio.gather(*map(ack, range(20)))
        for number, answer in enumerate(answers):
            if number % 4:
                assert [result.status for result in answer.results] == [ACK_STATUS_APPLIED]  # type: ignore[attr-defined]
            else:
                assert isinstance(answer, Refusal) and answer.place == "items[1].handle"
        refused_ones = [deliveries[number] for number in range(0, 20, 4)]
        assert await worker.complete(*refused_ones) == [ACK_STATUS_APPLIED] * 5


async def test_publishing_again_stores_nothing_twice(api: Api) -> None:
    request = PublishRequest(queue="again", jobs=[JobSpec(id=str(uuid4()), data='{"a": 1}') for _ in range(3)])
    first, second = await asyncio.gather(api.queue.Publish(request), api.queue.Publish(request))
    ids = [spec.id for spec in request.jobs]
    assert [result.job_id for result in first.results] == [result.job_id for result in second.results] == ids
    assert sum(result.created for answer in (first, second) for result in answer.results) == 3
    request.jobs[1].data = '{"a": 2}'
    request.jobs.add(data="3")
    third = (await api.queue.Publish(request)).results
    assert [result.created for result in third] == [False, False, False, True]
    assert [result.data_differs for result in third] == [False, True, False, False]
    assert {result.reason for result in third[:3]} == {NOT_CREATED_REASON_DUPLICATE_ID}
    assert [result.met_job_id for result in third] == [*ids, ""]


async def test_an_id_twice_in_one_batch_is_one_job(api: Api) -> None:
    job_id = str(uuid4())
    request = PublishRequest(queue="twins", jobs=[JobSpec(id=job_id, data="1"), JobSpec(id=job_id.upper(), data="2")])
    results = (await api.queue.Publish(request)).results
    assert [(result.job_id, result.created, result.data_differs) for result in results] == [
        (job_id, True, False),
        (job_id, False, True),
    ]
