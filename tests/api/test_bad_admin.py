"""What AdminService refuses: with the field's path and the rule, and with nothing changed."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from jobwire.v1.admin_service_pb2 import (
    CancelJobsRequest,
    CreateQueueRequest,
    GetQueueRequest,
    ListJobsRequest,
    ListQueuesRequest,
    Queue,
    UpdateQueueRequest,
)
from jobwire.v1.job_pb2 import JobOptions
from jobwire.v1.session_pb2 import DrainSessionRequest, ListSessionsRequest

from .conftest import Api, Eye
from .refusals import refused
from .worker import publish

ID = "01890a5d-ac96-774b-bcce-b302099a8057"

BAD_NAMES = {
    "": "nothing",
    "a:b": "colon",
    "a.b": "dot",
    "a b": "space",
    "é": "unicode",
    "x" * 64: "long",
    "a\n": "newline",
}

BAD_QUEUES = {
    "max_data_bytes 0": (Queue(name="q", max_data_bytes=0), "queue.max_data_bytes", "1 to 524,288; got 0"),
    "max_data_bytes -1": (Queue(name="q", max_data_bytes=-1), "queue.max_data_bytes", "got -1"),
    "max_data_bytes high": (Queue(name="q", max_data_bytes=524_289), "queue.max_data_bytes", "got 524,289"),
    "max_depth -1": (Queue(name="q", max_depth=-1), "queue.max_depth", "0 to 1,000,000,000; got -1"),
    "max_depth high": (Queue(name="q", max_depth=10**9 + 1), "queue.max_depth", "got 1,000,000,001"),
    "retry_limit": (Queue(name="q", options=JobOptions(retry_limit=-1)), "queue.options.retry_limit", "got -1"),
    "retention": (
        Queue(name="q", options=JobOptions(retention=Duration(seconds=2**62))),
        "queue.options.retention",
        "0 s to 3,650 days",
    ),
    "expire_in": (
        Queue(name="q", options=JobOptions(expire_in=Duration(seconds=1, nanos=-1))),
        "queue.options.expire_in",
        "no valid Duration",
    ),
    **{what: (Queue(name=name), "queue.name", "1 to 63 letters") for name, what in BAD_NAMES.items()},
}

BAD_CALLS: dict[str, tuple[Message, str, str]] = {
    **{
        f"{kind.DESCRIPTOR.name} {what}": (kind(queue=queue), place, words)
        for kind in (CreateQueueRequest, UpdateQueueRequest)
        for what, (queue, place, words) in BAD_QUEUES.items()
    },
    "CreateQueueRequest empty": (CreateQueueRequest(), "queue.name", "1 to 63 letters"),
    "GetQueueRequest": (GetQueueRequest(name="a:b"), "name", "1 to 63 letters"),
    "ListQueuesRequest size": (ListQueuesRequest(page_size=-1), "page_size", "0 to 1,000; got -1"),
    "ListQueuesRequest large": (ListQueuesRequest(page_size=1_001), "page_size", "got 1,001"),
    "ListQueuesRequest token": (ListQueuesRequest(page_token="a b"), "page_token", ""),
    "ListJobsRequest queue": (ListJobsRequest(queue="a/b"), "queue", "1 to 63 letters"),
    "ListJobsRequest unspecified": (ListJobsRequest(queue="q", states=[1, 0]), "states[1]", "JOB_STATE_CREATED"),
    "ListJobsRequest state 8": (ListJobsRequest(queue="q", states=[8]), "states[0]", "got 8"),
    "ListJobsRequest state -1": (ListJobsRequest(queue="q", states=[-1]), "states[0]", "got -1"),
    "ListJobsRequest state max": (ListJobsRequest(queue="q", states=[2**31 - 1]), "states[0]", "got 2147483647"),
    "ListJobsRequest states": (ListJobsRequest(queue="q", states=[1] * 8), "states", "got 8"),
    "ListJobsRequest size": (ListJobsRequest(queue="q", page_size=-1), "page_size", "0 to 500; got -1"),
    "ListJobsRequest large": (ListJobsRequest(queue="q", page_size=501), "page_size", "got 501"),
    "ListJobsRequest token": (ListJobsRequest(queue="q", page_token="next"), "page_token", "UUID"),
    "ListSessionsRequest queue": (ListSessionsRequest(queue="a.b"), "queue", "1 to 63 letters"),
    "ListSessionsRequest running": (ListSessionsRequest(max_running=1_001), "max_running", "0 to 1,000; got 1,001"),
    "ListSessionsRequest size": (ListSessionsRequest(page_size=201), "page_size", "0 to 200; got 201"),
    "ListSessionsRequest token": (ListSessionsRequest(page_token="next"), "page_token", "UUID"),
    "DrainSessionRequest nobody": (DrainSessionRequest(), "session_id", "UUID"),
    "DrainSessionRequest id": (DrainSessionRequest(session_id="42"), "session_id", "UUID"),
    "CancelJobsRequest queue": (CancelJobsRequest(queue="a.b", job_ids=[ID]), "queue", "1 to 63 letters"),
    "CancelJobsRequest none": (CancelJobsRequest(queue="q"), "job_ids", "1 to 1,000 entries; got 0"),
    "CancelJobsRequest 1001": (CancelJobsRequest(queue="q", job_ids=[ID] * 1_001), "job_ids", "got 1,001"),
    "CancelJobsRequest ids": (CancelJobsRequest(queue="q", job_ids=[ID, "7"]), "job_ids[1]", "UUID"),
}


@pytest.mark.parametrize(("request_", "place", "words"), BAD_CALLS.values(), ids=BAD_CALLS)
async def test_bad_calls(api: Api, shared_eye: Eye, request_: Message, place: str, words: str) -> None:
    await publish(api, queue="q")
    before = shared_eye.rows()
    method = request_.DESCRIPTOR.name.removesuffix("Request")
    answer = await refused(getattr(api.admin, method)(request_))
    assert shared_eye.rows() == before
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert answer.place == place and words in answer.message and answer.retry_after is None


@pytest.mark.parametrize(
    "request_",
    [
        GetQueueRequest(name="nowhere"),
        UpdateQueueRequest(queue=Queue(name="nowhere", max_data_bytes=1)),
        ListJobsRequest(queue="nowhere"),
        CancelJobsRequest(queue="nowhere", job_ids=[ID]),
    ],
    ids=lambda request: request.DESCRIPTOR.name,
)
async def test_a_queue_that_does_not_exist(api: Api, request_: Message) -> None:
    method = request_.DESCRIPTOR.name.removesuffix("Request")
    answer = await refused(getattr(api.admin, method)(request_))
    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
    assert "'nowhere'" in answer.message and "CreateQueue" in answer.message
