"""What AdminService refuses: with the field's path and the rule, and with nothing changed."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from jobwire.v1.admin_service_pb2 import (
    CancelJobsRequest,
    CreateQueueRequest,
    GetQueueRequest,
    ListJobsRequest,
    ListQueuesRequest,
    PauseQueueRequest,
    Queue,
    QueueLimits,
    Rate,
    ResumeQueueRequest,
    UpdateQueueRequest,
)
from jobwire.v1.job_pb2 import JOB_STATE_COMPLETED, JobOptions
from jobwire.v1.operations_pb2 import (
    CancelChange,
    ChangeJobsRequest,
    DeleteQueueRequest,
    JobFilter,
    JobIds,
    ListActionsRequest,
    MoveChange,
    PurgeQueueRequest,
    RetryChange,
    UpdateJobsRequest,
)
from jobwire.v1.session_pb2 import DrainSessionRequest, ListSessionsRequest

from .conftest import Api, Eye
from .refusals import refused
from .worker import publish

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
ONE = JobIds(ids=[ID])

MINUTE = Duration(seconds=60)
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
    "dead_letter": (Queue(name="q", options=JobOptions(dead_letter="a b")), "queue.options.dead_letter", "1 to 63"),
    "policy 7": (Queue(name="q", policy=7), "queue.policy", "is not known: 7"),
    "policy -1": (Queue(name="q", policy=-1), "queue.policy", "is not known: -1"),
    "waiting_retention": (
        Queue(name="q", waiting_retention=Duration(seconds=-1)),
        "queue.waiting_retention",
        "got -1 s",
    ),
    "waiting_retention high": (
        Queue(name="q", waiting_retention=Duration(seconds=3_650 * 86_400, nanos=1)),
        "queue.waiting_retention",
        "to 3,650 days",
    ),
    **{
        f"{name} {most}": (Queue(name="q", limits=QueueLimits(**{name: most})), f"queue.limits.{name}", rule)
        for name in ("max_active", "group_max_active")
        for most, rule in (
            (0, "1 to 1,000,000; got 0; to have nothing run, pause the queue"),
            (-1, "got -1; to have nothing run"),
            (1_000_001, "1 to 1,000,000; got 1,000,001"),
        )
    },
    **{
        f"{name} of {rate.starts}": (
            Queue(name="q", limits=QueueLimits(**{name: rate})),
            f"queue.limits.{name}.{at}",
            rule,
        )
        for name in ("rate", "group_rate")
        for rate, at, rule in (
            (Rate(starts=0, period=MINUTE), "starts", "1 to 1,000,000; got 0; to have nothing start, pause the queue"),
            (Rate(starts=-1, period=MINUTE), "starts", "got -1; to have nothing start"),
            (Rate(starts=1_000_001, period=MINUTE), "starts", "got 1,000,001"),
            (Rate(starts=2), "period", "100 ms to 31 days; got 0 s"),
            (Rate(starts=3, period=Duration(nanos=99_999_999)), "period", "100 ms to 31 days"),
            (Rate(starts=4, period=Duration(seconds=31 * 86_400, nanos=1)), "period", "100 ms to 31 days"),
            (Rate(starts=5, period=Duration(seconds=1, nanos=-1)), "period", "no valid Duration"),
        )
    },
    **{
        f"tier {tier[:4]!a} {most}": (Queue(name="q", limits=QueueLimits(tier_max_active={tier: most})), at, rule)
        for tier, most, at, rule in (
            ("gold", 0, "queue.limits.tier_max_active['gold']", "pause the queue"),
            ("gold", 1_000_001, "queue.limits.tier_max_active['gold']", "got 1,000,001"),
            ("t" * 201, 1, f"queue.limits.tier_max_active['{'t' * 40}']", "at most 200 characters"),
            ("a\0", 1, "queue.limits.tier_max_active['a\\x00']", "NUL"),
            ("", 1, "queue.limits.tier_max_active['']", "must be set"),
        )
    },
    "tiers 101": (
        Queue(name="q", limits=QueueLimits(tier_max_active={str(n): 1 for n in range(101)})),
        "queue.limits.tier_max_active",
        "0 to 100 entries; got 101",
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
    "PauseQueueRequest": (PauseQueueRequest(name="a:b"), "name", "1 to 63 letters"),
    "ResumeQueueRequest": (ResumeQueueRequest(), "name", "1 to 63 letters"),
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
    "ListJobsRequest states twice": (
        ListJobsRequest(queue="q", states=[1], filter=JobFilter(states=[1])),
        "states",
        "give one of them",
    ),
    "ListJobsRequest filter": (
        ListJobsRequest(filter=JobFilter(data_contains="{nope")),
        "filter.data_contains",
        "is not JSON",
    ),
    "ListJobsRequest all token": (ListJobsRequest(page_token="a b/"), "page_token", "1 to 63 letters"),
    "ChangeJobsRequest change": (ChangeJobsRequest(queue="q", ids=ONE), "change", "cancel, retry"),
    "ChangeJobsRequest selection": (ChangeJobsRequest(queue="q", cancel=CancelChange()), "selection", "`filter`"),
    "ChangeJobsRequest queue": (ChangeJobsRequest(ids=ONE, cancel=CancelChange()), "queue", "1 to 63 letters"),
    "ChangeJobsRequest ids": (
        ChangeJobsRequest(queue="q", ids=JobIds(ids=["7"]), cancel=CancelChange()),
        "ids.ids[0]",
        "UUID",
    ),
    "ChangeJobsRequest limit": (
        ChangeJobsRequest(queue="q", ids=ONE, cancel=CancelChange(), limit=1),
        "limit",
        "is for filters",
    ),
    "ChangeJobsRequest limit -1": (
        ChangeJobsRequest(queue="q", filter=JobFilter(), cancel=CancelChange(), limit=-1),
        "limit",
        "got -1",
    ),
    "ChangeJobsRequest states": (
        ChangeJobsRequest(queue="q", filter=JobFilter(states=[JOB_STATE_COMPLETED]), retry=RetryChange(), limit=1),
        "filter.states",
        "CANCELLED, FAILED",
    ),
    "ChangeJobsRequest dry": (
        ChangeJobsRequest(queue="q", filter=JobFilter(), cancel=CancelChange(), limit=1, dry_run=True),
        "dry_run",
        "leave `limit`",
    ),
    "ChangeJobsRequest move": (
        ChangeJobsRequest(queue="q", ids=ONE, move=MoveChange(destination="q")),
        "move.destination",
        "another",
    ),
    "ChangeJobsRequest token": (
        ChangeJobsRequest(queue="q", filter=JobFilter(), cancel=CancelChange(), page_token="x"),
        "page_token",
        "no token",
    ),
    "UpdateJobsRequest selection": (UpdateJobsRequest(queue="q"), "selection", "`job_id`"),
    "UpdateJobsRequest data": (UpdateJobsRequest(queue="q", job_id=ID, data="{"), "data", "is not JSON"),
    "UpdateJobsRequest start": (
        UpdateJobsRequest(queue="q", job_id=ID, start_after=Timestamp(seconds=1), start_in=Duration()),
        "start_in",
        "excludes",
    ),
    "UpdateJobsRequest which": (UpdateJobsRequest(queue="q", key="k", which=9), "which", "newest, oldest or all"),
    "PurgeQueueRequest scope": (PurgeQueueRequest(queue="q"), "scope", "waiting, finished or all"),
    "DeleteQueueRequest name": (DeleteQueueRequest(name="a b"), "name", "1 to 63 letters"),
    "DeleteQueueRequest token": (DeleteQueueRequest(name="q", page_token="x"), "page_token", "no token"),
    "ListActionsRequest token": (ListActionsRequest(page_token="x"), "page_token", "no token"),
    "ListActionsRequest size": (ListActionsRequest(page_size=501), "page_size", "got 501"),
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
        UpdateQueueRequest(queue=Queue(name="nowhere", limits=QueueLimits(max_active=1))),
        PauseQueueRequest(name="nowhere"),
        ResumeQueueRequest(name="nowhere"),
        ListJobsRequest(queue="nowhere"),
        CancelJobsRequest(queue="nowhere", job_ids=[ID]),
        ChangeJobsRequest(queue="nowhere", ids=ONE, cancel=CancelChange()),
        ChangeJobsRequest(queue="nowhere", filter=JobFilter(), cancel=CancelChange(), dry_run=True),
        UpdateJobsRequest(queue="nowhere", job_id=ID),
        PurgeQueueRequest(queue="nowhere", scope=1),
        DeleteQueueRequest(name="nowhere"),
    ],
    ids=lambda request: request.DESCRIPTOR.name,
)
async def test_a_queue_that_does_not_exist(api: Api, request_: Message) -> None:
    method = request_.DESCRIPTOR.name.removesuffix("Request")
    answer = await refused(getattr(api.admin, method)(request_))
    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
    assert "'nowhere'" in answer.message and "CreateQueue" in answer.message
