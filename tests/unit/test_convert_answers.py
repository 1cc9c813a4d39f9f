"""Answers and events: each value of the domain arrives in the field that the contract names for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from jobwire.v1 import admin_service_pb2, job_pb2, queue_service_pb2
from jobwire_server import __version__
from jobwire_server.api import answers
from jobwire_server.broker.messages import AckAnswer, Cancellation, Deliveries, Draining, Event, Heartbeat, Opened
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import (
    AckResult,
    AckStatus,
    CancelStatus,
    Delivery,
    Job,
    JobFailure,
    JobState,
    NotCreated,
    Progress,
    Published,
    StopReason,
)
from jobwire_server.domain.queues import JobOptions, Queue, QueueCounts

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
HANDLE = Handle("mail", ID, uuid4(), 3)
MOMENT = datetime(2024, 2, 29, 12, 0, 0, 250_000, tzinfo=UTC)
WRITTEN = "2024-02-29T12:00:00.250Z"
OPTIONS = {
    "retry_limit": 2,
    "retry_delay": "1s",
    "retry_backoff": True,
    "retry_delay_max": "3600s",
    "expire_in": "900s",
    "retention": "604800s",
}


def written(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def job(**changes: Any) -> Job:
    waiting: dict[str, Any] = {
        "queue": "mail",
        "id": ID,
        "state": JobState.CREATED,
        "data": '{"n": 1.10}',
        "headers": None,
        "priority": 0,
        "options": JobOptions(),
        "attempt": 0,
        "retry_count": 0,
        "loss_count": 0,
        "release_count": 0,
        "progress": None,
        "output": None,
        "errors": (),
        "created_at": MOMENT,
        "start_after": MOMENT,
        "started_at": None,
        "finished_at": None,
        "worker": "",
        "session_id": None,
        "cancel_requested": False,
        "revision": "1.0.0",
    }
    return Job(**waiting | changes)


def test_a_waiting_job_has_no_field_that_it_does_not_need() -> None:
    assert written(answers.job(job())) == {
        "queue": "mail",
        "id": str(ID),
        "state": "JOB_STATE_CREATED",
        "data": '{"n": 1.10}',
        "options": OPTIONS,
        "create_time": WRITTEN,
        "start_after": WRITTEN,
        "revision": "1.0.0",
    }


def test_a_job_that_ran_shows_everything() -> None:
    message = answers.job(
        job(
            state=JobState.ACTIVE,
            headers='{"traceparent":"00-é"}',
            priority=-5,
            options=JobOptions(retry_limit=0, retry_backoff=False),
            attempt=4,
            retry_count=1,
            loss_count=2,
            release_count=3,
            progress=Progress(0.0, "begun"),
            output="null",
            errors=(JobFailure(1, MOMENT, "E", "message", "trace", "worker 1"),),
            started_at=MOMENT,
            finished_at=MOMENT,
            worker="worker 2",
            session_id=ID,
            cancel_requested=True,
        )
    )
    assert written(message) == {
        "queue": "mail",
        "id": str(ID),
        "state": "JOB_STATE_ACTIVE",
        "data": '{"n": 1.10}',
        "headers": {"traceparent": "00-é"},
        "priority": -5,
        "options": OPTIONS | {"retry_limit": 0, "retry_backoff": False},
        "attempt": 4,
        "retry_count": 1,
        "loss_count": 2,
        "release_count": 3,
        "progress": {"fraction": 0.0, "note": "begun"},
        "output": "null",
        "errors": [
            {"attempt": 1, "time": WRITTEN, "type": "E", "message": "message", "trace": "trace", "worker": "worker 1"}
        ],
        "create_time": WRITTEN,
        "start_after": WRITTEN,
        "start_time": WRITTEN,
        "finish_time": WRITTEN,
        "worker": "worker 2",
        "session_id": str(ID),
        "cancel_requested": True,
        "revision": "1.0.0",
    }


def test_progress_without_a_share_says_so() -> None:
    message = answers.job(job(progress=Progress(None, "counting")))
    assert not message.progress.HasField("fraction")


def test_published_jobs_are_answered_in_order() -> None:
    other = uuid4()
    message = answers.publish_response(
        [Published(ID, True), Published(other, False, True, NotCreated.DUPLICATE_ID, other)]
    )
    assert written(message)["results"] == [
        {"job_id": str(ID), "created": True},
        {
            "job_id": str(other),
            "reason": "NOT_CREATED_REASON_DUPLICATE_ID",
            "met_job_id": str(other),
            "data_differs": True,
        },
    ]


def test_acks_are_answered_in_order() -> None:
    results = [
        AckResult(AckStatus.APPLIED, JobState.COMPLETED),
        AckResult(AckStatus.APPLIED, JobState.ACTIVE, StopReason.EXPIRED, 0),
        AckResult(AckStatus.NOT_FOUND),
    ]
    message = answers.ack_response(AckAnswer(results, session_alive=True))
    assert written(message) == {
        "results": [
            {"status": "ACK_STATUS_APPLIED", "state": "JOB_STATE_COMPLETED"},
            {
                "status": "ACK_STATUS_APPLIED",
                "state": "JOB_STATE_ACTIVE",
                "cancel": "CANCEL_REASON_EXPIRED",
                "expires_in": "0s",
            },
            {"status": "ACK_STATUS_NOT_FOUND"},
        ],
        "session_alive": True,
    }


DELIVERY = Delivery(HANDLE, "[1]", '{"a":"b"}', 7, 2, 1, 3, MOMENT, 1_500)

EVENTS: list[tuple[Event, dict[str, Any]]] = [
    (
        Opened(ID, 4, True, (HANDLE,), 10, 5_000, 15_000),
        {
            "opened": {
                "session_id": str(ID),
                "epoch": "4",
                "resumed": True,
                "lost": [str(HANDLE)],
                "max_in_flight": 10,
                "heartbeat_interval": "5s",
                "resume_grace": "15s",
                "server_version": __version__,
            }
        },
    ),
    (
        Deliveries([DELIVERY]),
        {
            "deliveries": {
                "deliveries": [
                    {
                        "handle": str(HANDLE),
                        "queue": "mail",
                        "job_id": str(ID),
                        "data": "[1]",
                        "headers": {"a": "b"},
                        "priority": 7,
                        "attempt": 2,
                        "retry_count": 1,
                        "retry_limit": 3,
                        "create_time": WRITTEN,
                        "expire_in": "1.500s",
                    }
                ]
            }
        },
    ),
    (
        Cancellation(HANDLE, StopReason.REQUESTED, 0),
        {
            "cancellation": {
                "handle": str(HANDLE),
                "job_id": str(ID),
                "reason": "CANCEL_REASON_REQUESTED",
                "grace": "0s",
            }
        },
    ),
    (Heartbeat(), {"heartbeat": {}}),
    (Draining(300_000, 1_000), {"draining": {"resume_within": "300s", "reconnect_delay": "1s"}}),
]


@pytest.mark.parametrize(("event", "expected"), EVENTS, ids=[type(event).__name__ for event, _ in EVENTS])
def test_an_event_is_the_message_of_its_number(event: Event, expected: dict[str, Any]) -> None:
    assert written(answers.stream_message(event, 9)) == {"sequence": "9"} | expected


@pytest.mark.parametrize("size", [0, 127, 128, 3_900, 4_095, 4_096, 16_383, 16_384, 524_288])
def test_deliveries_of_any_size_arrive_as_they_were(size: int) -> None:
    sent = [
        DELIVERY._replace(data='"' + "x" * size + '"', headers=None, priority=-7),
        DELIVERY._replace(
            data='"é\U0001f600"', headers='{"a":"b","c":"é"}', created_at=datetime.max.replace(tzinfo=UTC)
        ),
    ]
    message = answers.stream_message(Deliveries(sent), 2**40)
    assert message.sequence == 2**40
    arrived = message.deliveries.deliveries
    assert [delivery.data for delivery in arrived] == [delivery.data for delivery in sent]
    assert [dict(delivery.headers) for delivery in arrived] == [{}, {"a": "b", "c": "é"}]
    assert [delivery.priority for delivery in arrived] == [-7, 7]
    assert [delivery.create_time.seconds for delivery in arrived] == [
        int(MOMENT.timestamp()),
        int(datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()),
    ]


def test_a_queue_shows_its_counts_only_if_they_were_counted() -> None:
    queue = Queue("mail", JobOptions(), 10, 5, created_at=MOMENT, updated_at=MOMENT)
    sizes = {"max_data_bytes": 10, "max_depth": "5", "policy": "QUEUE_POLICY_STANDARD", "limits": {}, "fair": False}
    plain = {"name": "mail", "options": OPTIONS, "create_time": WRITTEN, "update_time": WRITTEN} | sizes
    assert written(answers.queue(queue)) == plain
    counted = written(answers.queue(queue, QueueCounts(1, 2, 0)))
    assert counted == plain | {"counts": {"ready": "1", "scheduled": "2"}}


def test_cancellations_are_answered_in_the_order_of_the_request() -> None:
    other = uuid4()
    message = answers.cancel_response([other, ID], {ID: CancelStatus.REQUESTED, other: CancelStatus.NOT_FOUND})
    assert written(message)["results"] == [
        {"job_id": str(other), "status": "CANCEL_STATUS_NOT_FOUND"},
        {"job_id": str(ID), "status": "CANCEL_STATUS_REQUESTED"},
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (JobState, job_pb2.JobState, "JOB_STATE_"),
        (AckStatus, queue_service_pb2.AckStatus, "ACK_STATUS_"),
        (StopReason, queue_service_pb2.CancelReason, "CANCEL_REASON_"),
        (CancelStatus, admin_service_pb2.CancelStatus, "CANCEL_STATUS_"),
    ],
)
def test_enums_have_the_contracts_numbers(ours: Any, theirs: Any, prefix: str) -> None:
    contract = {name.removeprefix(prefix): number for name, number in theirs.items() if number}
    assert {each.name: each.value for each in ours} == contract
