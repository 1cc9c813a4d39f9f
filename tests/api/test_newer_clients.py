"""A client that is newer than the server: what it asks for is done as it meant it, or refused with the way out."""

from __future__ import annotations

from typing import TypeVar

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from jobwire.v1.admin_service_pb2 import CreateQueueRequest, GetQueueRequest, Queue
from jobwire.v1.job_pb2 import JobGroup, JobOptions, JobState
from jobwire.v1.queue_service_pb2 import (
    AckItem,
    AckRequest,
    AckStatus,
    Complete,
    GetJobRequest,
    JobSpec,
    PublishRequest,
    SubscribeRequest,
)

from .conftest import Api
from .refusals import refused
from .worker import publish

NUMBER = 9_999
FIELD = b"\xfa\xf0\x04\x06future"
"""A field of this number, a text, as the wire has it."""
Sent = TypeVar("Sent", bound=Message)


def newer(message: Sent) -> Sent:
    """The message with a field that no release of today has."""
    changed = type(message).FromString(message.SerializeToString() + FIELD)
    assert changed.SerializeToString().endswith(FIELD)
    return changed


@pytest.mark.parametrize(
    ("request_", "place"),
    [
        (newer(PublishRequest(queue="work", jobs=[JobSpec()])), "request"),
        (PublishRequest(queue="work", jobs=[JobSpec(), newer(JobSpec())]), "jobs[1]"),
        (
            PublishRequest(queue="work", jobs=[JobSpec(options=newer(JobOptions(expire_in=Duration(seconds=1))))]),
            "jobs[0].options",
        ),
        (PublishRequest(queue="work", jobs=[JobSpec(group=newer(JobGroup(id="a")))]), "jobs[0].group"),
    ],
    ids=["request", "job", "options", "group"],
)
async def test_no_job_is_stored_without_a_rule_that_came_with_it(
    api: Api, request_: PublishRequest, place: str
) -> None:
    answer = await refused(api.queue.Publish(request_))
    assert (answer.code, answer.reason, answer.place) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "UNKNOWN_FIELD",
        place,
    )
    assert f"number {NUMBER}" in answer.message and "update the server first" in answer.message
    # Nothing of it was stored: the queue would have been made with its first job.
    missing = await refused(api.admin.GetQueue(GetQueueRequest(name="work")))
    assert missing.reason == "QUEUE_NOT_FOUND"


async def test_no_queue_is_made_and_no_job_looked_up_without_it(api: Api) -> None:
    create = CreateQueueRequest(queue=newer(Queue(name="made")))
    assert (await refused(api.admin.CreateQueue(create))).place == "queue"
    [job_id] = await publish(api, queue="known")
    look = newer(GetJobRequest(queue="known", job_id=job_id))
    assert (await refused(api.queue.GetJob(look))).reason == "UNKNOWN_FIELD"


async def test_running_work_goes_on_without_it(api: Api) -> None:
    """As after a server was taken back to its last release under workers that are newer."""
    [job_id] = await publish(api, queue="running")
    stream = api.queue.Subscribe(newer(SubscribeRequest(queues=["running"])))
    opened = await stream.read()
    event = await stream.read()
    [delivery] = event.deliveries.deliveries
    done = newer(AckItem(handle=delivery.handle, complete=newer(Complete(output='"done"'))))
    said = AckRequest(session_id=opened.opened.session_id, last_sequence=event.sequence, items=[done])
    [result] = (await api.queue.Ack(newer(said))).results
    stream.cancel()
    assert result.status == AckStatus.ACK_STATUS_APPLIED
    job = (await api.queue.GetJob(GetJobRequest(queue="running", job_id=job_id))).job
    assert (job.state, job.output) == (JobState.JOB_STATE_COMPLETED, '"done"')
