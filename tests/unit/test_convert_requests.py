"""Requests: every rule of the contract has a request here that keeps it and one that breaks it, refused by its path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.json_format import ParseDict

from jobwire.v1 import admin_service_pb2, queue_service_pb2
from jobwire_server.api import admin_requests, operation_requests, requests
from jobwire_server.broker.messages import Ack, Subscription
from jobwire_server.domain import limits
from jobwire_server.domain.errors import DataTooLarge, InvalidArgument
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import Complete, Extend, Fail, JobState, NewJob, Progress, Release
from jobwire_server.domain.operations import JobFilter, Place
from jobwire_server.domain.queues import JobOptions, JobOptionsPatch

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
HANDLE = Handle("mail", UUID(ID), uuid4(), 1)
SECOND_HANDLE = Handle("reports", UUID(ID), uuid4(), 2)


def publish(*jobs: dict[str, Any], limit: int = limits.DATA_BYTES_DEFAULT) -> list[NewJob]:
    request = ParseDict({"queue": "mail", "jobs": jobs}, queue_service_pb2.PublishRequest())
    checking = requests.new_jobs(request, request.ByteSize(), limit)
    while True:
        try:
            checking.send(None)
        except StopIteration as end:
            return end.value


def subscribe(**fields: Any) -> Subscription:
    return requests.subscription(ParseDict({"queues": ["mail"]} | fields, queue_service_pb2.SubscribeRequest()))


def get_job(**fields: Any) -> requests.JobQuery:
    return requests.job_query(ParseDict({"job_id": ID} | fields, queue_service_pb2.GetJobRequest()))


def ack(**fields: Any) -> Ack:
    request = ParseDict(fields, queue_service_pb2.AckRequest())
    said = requests.ack(request)
    requests.check_outputs(said, {"mail": 100, "reports": 10})
    return said


def item(**outcome: Any) -> dict[str, Any]:
    return {"handle": str(HANDLE)} | outcome


def page_of_jobs(**fields: Any) -> operation_requests.JobPage:
    return operation_requests.job_page(ParseDict({"queue": "mail"} | fields, admin_service_pb2.ListJobsRequest()))


def page_of_queues(**fields: Any) -> admin_requests.QueuePage:
    return admin_requests.queue_page(ParseDict(fields, admin_service_pb2.ListQueuesRequest()))


def cancelled(*job_ids: str) -> list[UUID]:
    return admin_requests.cancelled_ids(admin_service_pb2.CancelJobsRequest(queue="mail", job_ids=job_ids))


def queue(**fields: Any) -> Any:
    return admin_requests.new_queue(ParseDict({"name": "mail"} | fields, admin_service_pb2.Queue()))


def test_a_bare_job_gets_an_id_of_version_7_and_the_payload_null() -> None:
    (job,) = publish({})
    assert (job.id.version, job.client_id, job.data) == (7, False, "null")
    assert (job.start_after, job.start_in_ms, job.headers, job.options) == (None, None, None, JobOptionsPatch())


def test_a_full_job_is_taken_as_it_is() -> None:
    (job,) = publish(
        {
            "id": ID.upper(),
            "data": '{"n": 12345678901234567890, "n": 1.10}',
            "priority": -32_768,
            "start_in": "2.5s",
            "headers": {"traceparent": "00-é"},
            "options": {"retry_limit": 0, "retry_backoff": False, "expire_in": "1s", "retention": "0s"},
        }
    )
    assert (job.id, job.client_id, job.priority, job.start_in_ms) == (UUID(ID), True, -32_768, 2_500)
    assert job.data == '{"n": 12345678901234567890, "n": 1.10}'
    assert job.headers == '{"traceparent":"00-é"}'
    assert job.options == JobOptionsPatch(retry_limit=0, retry_backoff=False, expire_ms=1_000, retention_ms=0)


def test_jobs_keep_their_order() -> None:
    assert [job.data for job in publish({"data": "1"}, {"data": "2"}, {"data": "1"})] == ["1", "2", "1"]


def test_a_subscription_has_the_documented_defaults() -> None:
    assert subscribe() == Subscription(("mail",), 1, "", 5_000, 15_000, None)


def test_a_resume_names_session_epoch_and_each_held_delivery_once() -> None:
    held = [str(HANDLE), str(SECOND_HANDLE), str(HANDLE)]
    resume = subscribe(resume={"session_id": ID, "epoch": "7", "held": held}).resume
    assert resume is not None
    assert (resume.session_id, resume.epoch, resume.held) == (UUID(ID), 7, (HANDLE, SECOND_HANDLE))


def test_a_query_without_a_queue_searches_all() -> None:
    assert get_job() == requests.JobQuery(None, UUID(ID), 0, None, False)
    assert get_job(queue="mail", wait="60s", known_revision="1.2.3", until_finished=True) == requests.JobQuery(
        "mail", UUID(ID), 60_000, "1.2.3", True
    )


def test_an_empty_ack_is_a_sign_of_life() -> None:
    assert ack(session_id=ID, last_sequence="9") == Ack(UUID(ID), (), 9)
    assert ack() == Ack(None, ())


def test_every_outcome_is_read() -> None:
    answer = ack(
        session_id=ID,
        items=[
            item(complete={}),
            item(complete={"output": "[1]"}),
            item(fail={"type": "E", "message": "m", "trace": "t", "permanent": True}),
            item(fail={"retry_in": "0s"}),
            item(release={}),
            item(release={"delay": "7s"}),
            item(extend={}),
            item(extend={"expire_in": "60s", "progress": {"fraction": 0.5, "note": "half"}}),
            item(extend={"progress": {}}),
        ],
        max_in_flight=0,
        close_session=True,
    )
    assert [each.outcome for each in answer.items] == [
        Complete(None),
        Complete("[1]"),
        Fail("E", "m", "t", permanent=True),
        Fail("", "", "", retry_ms=0),
        Release(None),
        Release(7_000),
        Extend(None, None),
        Extend(60_000, Progress(0.5, "half")),
        Extend(None, Progress(None, "")),
    ]
    assert (answer.max_in_flight, answer.close_session) == (0, True)


def test_texts_of_errors_and_progress_are_cut_and_made_storable() -> None:
    texts = {"type": "t" * 300, "message": "m\0" * 3_000, "trace": "é" * 9_000}
    answer = ack(items=[item(fail=texts), item(extend={"progress": {"note": "n" * 2_000}})])
    fail, extend = (each.outcome for each in answer.items)
    assert isinstance(fail, Fail)
    assert isinstance(extend, Extend)
    assert extend.progress is not None
    assert (len(fail.type), len(fail.message), len(extend.progress.note)) == (200, 2_000, 1_000)
    assert len(fail.trace.encode()) <= 8_192
    assert "\0" not in fail.message


def test_outputs_are_held_to_their_own_queues_limit() -> None:
    long = '"' + "x" * 20 + '"'
    ack(items=[item(complete={"output": long})])
    with pytest.raises(DataTooLarge, match=r"items\[0\]\.complete\.output: is 22 bytes, the queue allows 10;"):
        ack(items=[{"handle": str(SECOND_HANDLE), "complete": {"output": long}}])


def test_a_new_queue_has_the_documented_defaults() -> None:
    made = queue()
    assert (made.options, made.max_data_bytes) == (JobOptions(), 65_536)
    assert (made.options.retry_limit, made.options.expire_ms, made.options.retention_ms) == (2, 900_000, 604_800_000)


def test_a_patch_says_only_what_the_request_says() -> None:
    message = admin_service_pb2.Queue(name="mail", max_data_bytes=1)
    name, patch = admin_requests.queue_patch(message)
    assert (name, patch.max_data_bytes, patch.options) == ("mail", 1, JobOptionsPatch())


def test_pages_have_the_documented_sizes() -> None:
    assert (page_of_jobs().size, page_of_queues().size) == (50, 100)
    page = page_of_jobs(page_size=500, page_token=ID, states=["JOB_STATE_FAILED", "JOB_STATE_BLOCKED"])
    assert (page.size, page.place) == (500, Place("mail", UUID(ID)))
    assert page.wanted == JobFilter(states=frozenset({JobState.FAILED, JobState.BLOCKED}))
    # Of all queues, where a page ends within one or with it.
    for place in (Place("mail", UUID(ID)), Place("mail")):
        token = operation_requests.page_token(place, None)
        assert page_of_jobs(queue="", page_token=token).place == place
    assert page_of_queues(page_size=1_000, page_token="mail") == admin_requests.QueuePage("mail", 1_000)


BROKEN: list[tuple[str, str, Callable[[], object]]] = [
    ("jobs", "must have 1 to 1,000 entries; got 0", publish),
    ("jobs", "must have 1 to 1,000 entries; got 1,001", lambda: publish(*[{}] * 1_001)),
    (
        "jobs",
        "split the call",
        lambda: publish(*[{"data": '"' + "x" * 400_000 + '"'}] * 8, limit=limits.DATA_BYTES_MAX),
    ),
    ("jobs[1].id", "must be a UUID", lambda: publish({}, {"id": "1"})),
    ("jobs[0].data", "is not JSON", lambda: publish({"data": "{nope"})),
    ("jobs[0].data", "is not JSON", lambda: publish({"data": "NaN"})),
    ("jobs[0].data", "is not JSON", lambda: publish({"data": r'"\ud800"'})),
    ("jobs[0].data", r"contains \u0000", lambda: publish({"data": r'"\u0000"'})),
    ("jobs[0].data", "nested deeper than 64", lambda: publish({"data": "[" * 65 + "]" * 65})),
    (
        "jobs[0].data",
        "is 12 bytes, the queue allows 11; store the content",
        lambda: publish({"data": '"éllérér"'}, limit=11),
    ),
    ("jobs[0].priority", "must be -32,768 to 32,767; got 32,768", lambda: publish({"priority": 32_768})),
    ("jobs[0].priority", "got -32,769", lambda: publish({"priority": -32_769})),
    ("jobs[0].start_in", "must be 0 s to 3,650 days", lambda: publish({"start_in": "-1s"})),
    ("jobs[0].start_in", "must be 0 s to 3,650 days", lambda: publish({"start_in": "315360001s"})),
    ("jobs[0].start_after", "at most 3,650 days ahead", lambda: publish({"start_after": "2999-01-01T00:00:00Z"})),
    ("jobs[0].headers", "0 to 20 entries", lambda: publish({"headers": {str(n): "" for n in range(21)}})),
    ("jobs[0].headers", "names of 1 to 100", lambda: publish({"headers": {"": "x"}})),
    ("jobs[0].headers", "101 characters long", lambda: publish({"headers": {"n" * 101: "x"}})),
    ("jobs[0].headers['n']", "1,000 characters", lambda: publish({"headers": {"n": "x" * 1_001}})),
    ("jobs[0].headers['n']", "NUL", lambda: publish({"headers": {"n": "\0"}})),
    ("jobs[0].options.retry_limit", "0 to 1,000", lambda: publish({"options": {"retry_limit": 1_001}})),
    ("jobs[0].options.retry_limit", "got -1", lambda: publish({"options": {"retry_limit": -1}})),
    ("jobs[0].options.retry_delay", "0 s to 7 days", lambda: publish({"options": {"retry_delay": "604801s"}})),
    ("jobs[0].options.retry_delay_max", "0 s to 7 days", lambda: publish({"options": {"retry_delay_max": "-0.1s"}})),
    ("jobs[0].options.expire_in", "1 s to 7 days", lambda: publish({"options": {"expire_in": "0.999s"}})),
    ("jobs[0].options.retention", "0 s to 3,650 days", lambda: publish({"options": {"retention": "-1s"}})),
    ("queues", "must have 1 to 100 entries; got 0", lambda: subscribe(queues=[])),
    ("queues", "got 101", lambda: subscribe(queues=[f"q{n}" for n in range(101)])),
    ("queues[1]", "must be 1 to 63 letters", lambda: subscribe(queues=["mail", "ma.il"])),
    ("queues[2]", "second time", lambda: subscribe(queues=["a", "b", "a"])),
    ("max_in_flight", "must be 1 to 1,000; got 0", lambda: subscribe(max_in_flight=0)),
    ("max_in_flight", "got 1,001", lambda: subscribe(max_in_flight=1_001)),
    ("worker", "at most 200 characters", lambda: subscribe(worker="w" * 201)),
    ("worker", "NUL", lambda: subscribe(worker="a\0b")),
    ("heartbeat_interval", "1 s to 5 minutes", lambda: subscribe(heartbeat_interval="0.5s")),
    ("heartbeat_interval", "1 s to 5 minutes", lambda: subscribe(heartbeat_interval="301s")),
    ("resume_grace", "0 s to 15 s", lambda: subscribe(resume_grace="16s")),
    ("resume.session_id", "must be a UUID", lambda: subscribe(resume={})),
    ("resume.epoch", "got -1", lambda: subscribe(resume={"session_id": ID, "epoch": "-1"})),
    ("resume.epoch", "got 9,", lambda: subscribe(resume={"session_id": ID, "epoch": str(2**63 - 1)})),
    ("resume.held", "0 to 1,000", lambda: subscribe(resume={"session_id": ID, "held": [str(HANDLE)] * 1_001})),
    ("resume.held[1]", "is no handle", lambda: subscribe(resume={"session_id": ID, "held": [str(HANDLE), "x"]})),
    ("queue", "must be 1 to 63 letters", lambda: get_job(queue="ma il")),
    ("job_id", "must be a UUID", lambda: get_job(job_id="")),
    ("wait", "0 s to 1 minute", lambda: get_job(wait="60.1s")),
    ("wait", "0 s to 1 minute", lambda: get_job(wait="-1s")),
    ("session_id", "must be a UUID", lambda: ack(session_id="x")),
    ("session_id", "must be set along with", lambda: ack(close_session=True)),
    ("session_id", "must be set along with", lambda: ack(max_in_flight=3)),
    ("last_sequence", "got -1", lambda: ack(last_sequence="-1")),
    ("max_in_flight", "must be 0 to 1,000; got -1", lambda: ack(session_id=ID, max_in_flight=-1)),
    ("max_in_flight", "got 1,001", lambda: ack(session_id=ID, max_in_flight=1_001)),
    ("items", "0 to 1,000 entries; got 1,001", lambda: ack(items=[item(complete={})] * 1_001)),
    ("items", "split the call", lambda: ack(items=[item(fail={"trace": "x" * 40_000})] * 100)),
    ("items[1].handle", "is no handle", lambda: ack(items=[item(complete={}), {"handle": "x", "complete": {}}])),
    ("items[0].handle", "is no handle", lambda: ack(items=[{"complete": {}}])),
    ("items[0]", "must say one of", lambda: ack(items=[item()])),
    ("items[0].complete.output", "is not JSON", lambda: ack(items=[item(complete={"output": "{"})])),
    ("items[0].fail.retry_in", "0 s to 7 days", lambda: ack(items=[item(fail={"retry_in": "-1s"})])),
    ("items[0].release.delay", "0 s to 7 days", lambda: ack(items=[item(release={"delay": "604801s"})])),
    ("items[0].extend.expire_in", "1 s to 7 days", lambda: ack(items=[item(extend={"expire_in": "0s"})])),
    *[
        (
            "items[0].extend.progress.fraction",
            "must be 0 to 1",
            lambda n=number: ack(items=[item(extend={"progress": {"fraction": n}})]),
        )
        for number in (-0.01, 1.01, "NaN", "Infinity")
    ],
    ("queue.name", "must be 1 to 63 letters", lambda: queue(name="")),
    ("queue.max_data_bytes", "1 to 524,288; got 0", lambda: queue(max_data_bytes=0)),
    ("queue.max_data_bytes", "got 524,289", lambda: queue(max_data_bytes=524_289)),
    ("queue.options.expire_in", "1 s to 7 days", lambda: queue(options={"expire_in": "8000000s"})),
    ("page_size", "0 to 1,000; got -1", lambda: page_of_queues(page_size=-1)),
    ("page_token", "must be 1 to 63 letters", lambda: page_of_queues(page_token="a b")),
    ("queue", "must be 1 to 63 letters", lambda: page_of_jobs(queue="a b")),
    ("page_size", "0 to 500; got 501", lambda: page_of_jobs(page_size=501)),
    ("page_token", "must be a UUID", lambda: page_of_jobs(page_token="2")),
    ("states[1]", "must be a state", lambda: page_of_jobs(states=["JOB_STATE_FAILED", 0])),
    ("states[0]", "must be a state", lambda: page_of_jobs(states=[99])),
    ("states", "0 to 7 entries", lambda: page_of_jobs(states=["JOB_STATE_FAILED"] * 8)),
    ("job_ids", "1 to 1,000 entries; got 0", cancelled),
    ("job_ids", "got 1,001", lambda: cancelled(*[ID] * 1_001)),
    ("job_ids[1]", "must be a UUID", lambda: cancelled(ID, "x")),
]


@pytest.mark.parametrize(("at", "rule", "request_"), BROKEN, ids=[f"{at}: {rule}"[:60] for at, rule, _ in BROKEN])
def test_a_broken_rule_is_refused_with_path_and_rule(at: str, rule: str, request_: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        request_()
    (violation,) = caught.value.violations
    assert violation.field.startswith(at) if at.endswith("nnn") else violation.field == at
    assert rule in violation.rule
