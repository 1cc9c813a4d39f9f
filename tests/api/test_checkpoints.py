"""What a run leaves for the next one, over the wire: kept exactly, through every way in which a lease ends."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from jobwire.v1 import job_pb2 as jobs
from jobwire.v1.queue_service_pb2 import (
    ACK_STATUS_APPLIED,
    AckItem,
    Complete,
    Delivery,
    Extend,
    Fail,
    GetJobRequest,
    Release,
)

from .conftest import Api
from .worker import Worker, publish

LEFT = '{ "page": 7,\n "seen": [1.50, "ä"] }'
AT_ONCE = Duration()


def leaving(delivery: Delivery, checkpoint: str | None, **progress: Any) -> AckItem:
    said = jobs.Progress(checkpoint=checkpoint, **progress)
    return AckItem(handle=delivery.handle, extend=Extend(progress=said))


async def job(api: Api, delivery: Delivery) -> jobs.Job:
    return (await api.queue.GetJob(GetJobRequest(queue=delivery.queue, job_id=delivery.job_id))).job


@pytest.mark.parametrize(
    "end",
    [
        Fail(type="Error", message="no", retry_in=AT_ONCE),
        Release(delay=AT_ONCE),
        Fail(retry_in=Duration(nanos=50_000_000)),
    ],
    ids=["fail", "release", "fail, later"],
)
async def test_the_next_attempt_gets_what_was_left_exactly(api: Api, end: Fail | Release) -> None:
    queue = f"left-{end.DESCRIPTOR.name}-{len(str(end))}"
    await publish(api, queue=queue)
    async with Worker(api, queue) as worker:
        [first] = await worker.receive(1)
        assert first.checkpoint == ""
        kind = {end.DESCRIPTOR.name.lower(): end}
        results = await worker.ack(
            leaving(first, LEFT, fraction=0.5, note="half"), AckItem(handle=first.handle, **kind)
        )
        assert [result.status for result in results] == [ACK_STATUS_APPLIED] * 2
        second = (await worker.receive(2))[1]
        assert (second.job_id, second.attempt, second.checkpoint) == (first.job_id, 2, LEFT)
        shown = await job(api, second)
        assert (shown.checkpoint, shown.progress) == (LEFT, jobs.Progress(fraction=0.5, note="half"))
        assert await worker.complete(second) == [ACK_STATUS_APPLIED]
    finished = await job(api, first)
    assert (finished.state, finished.checkpoint) == (jobs.JOB_STATE_COMPLETED, LEFT)


async def test_a_checkpoint_stays_until_it_is_replaced_or_cleared(api: Api) -> None:
    await publish(api, queue="stays")
    async with Worker(api, "stays") as worker:

        async def again(attempt: int, *items: AckItem) -> Delivery:
            before = worker.deliveries[-1]
            await worker.ack(*items, AckItem(handle=before.handle, release=Release(delay=AT_ONCE)))
            return (await worker.receive(attempt))[attempt - 1]

        [delivery] = await worker.receive(1)
        delivery = await again(2, leaving(delivery, "1"), leaving(delivery, None, fraction=1))
        assert delivery.checkpoint == "1"
        known = (await job(api, delivery)).revision
        delivery = await again(3, AckItem(handle=delivery.handle, extend=Extend(expire_in=Duration(seconds=60))))
        assert delivery.checkpoint == "1"
        delivery = await again(4, leaving(delivery, "2"), leaving(delivery, "3"))
        assert delivery.checkpoint == "3" and (await job(api, delivery)).revision != known
        delivery = await again(5, leaving(delivery, ""))
        assert delivery.checkpoint == "" and (await job(api, delivery)).checkpoint == ""
        await worker.ack(AckItem(handle=delivery.handle, complete=Complete()))


async def test_a_lost_session_leaves_what_was_acknowledged_and_a_late_word_nothing(api: Api) -> None:
    await publish(api, queue="lost")
    async with Worker(api, "lost", resume_grace=Duration()) as first:
        [mine] = await first.receive(1)
        assert [result.status for result in await first.ack(leaving(mine, LEFT))] == [ACK_STATUS_APPLIED]
    async with Worker(api, "lost") as second:
        [theirs] = await second.receive(1)
        assert (theirs.attempt, theirs.checkpoint) == (2, LEFT)
        [late] = await first.ack(leaving(mine, '"late"'))
        assert late.status != ACK_STATUS_APPLIED
        assert (await job(api, theirs)).checkpoint == LEFT
        await second.complete(theirs)


async def test_a_job_that_failed_for_good_shows_where_it_stopped(api: Api) -> None:
    await publish(api, queue="failed")
    async with Worker(api, "failed") as worker:
        [delivery] = await worker.receive(1)
        await worker.ack(leaving(delivery, LEFT), AckItem(handle=delivery.handle, fail=Fail(permanent=True)))
    shown = await job(api, delivery)
    assert (shown.state, shown.checkpoint) == (jobs.JOB_STATE_FAILED, LEFT)


async def test_large_ones_arrive_with_as_many_jobs_as_fit_a_message(api: Api) -> None:
    large = '"' + "x" * (64 * 1024 - 2) + '"'
    await publish(api, 40, queue="large")
    async with Worker(api, "large", max_in_flight=40) as worker:
        first = await worker.receive(40)
        await worker.ack(*(leaving(delivery, large) for delivery in first))
        # In one call, so that they are claimed together.
        await worker.ack(*(AckItem(handle=delivery.handle, release=Release(delay=AT_ONCE)) for delivery in first))
        again = (await worker.receive(80))[40:]
        assert [delivery.checkpoint == large for delivery in again] == [True] * 40
        assert all(message.ByteSize() < 1.2 * 1024 * 1024 for message in worker.messages)
        await worker.complete(*again)
