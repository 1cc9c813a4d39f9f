"""What Subscribe, Ack and GetJob refuse: with the field's path and the rule, and with nothing changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from jobwire.v1.job_pb2 import JOB_STATE_ACTIVE, Progress
from jobwire.v1.queue_service_pb2 import (
    ACK_STATUS_APPLIED,
    AckItem,
    AckRequest,
    Complete,
    Delivery,
    Extend,
    Fail,
    GetJobRequest,
    Release,
    Resume,
    SubscribeRequest,
)
from jobwire.v1.session_pb2 import QueueShare

from .conftest import Api, Eye
from .refusals import refused
from .worker import Worker, publish

DAY = 86_400
ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def item(delivery: Delivery, outcome: Message | None = None) -> AckItem:
    """What an Ack says of a delivery: `complete`, or the outcome given."""
    outcome = outcome or Complete()
    return AckItem(handle=delivery.handle, **{type(outcome).DESCRIPTOR.name.lower(): outcome})


def subscribe(*queues: str, **said: object) -> SubscribeRequest:
    return SubscribeRequest(queues=queues or ("fresh",), **said)


def share(**said: object) -> SubscribeRequest:
    return subscribe(shares=[QueueShare(**{"queue": "fresh", **said})])


def resume(**said: object) -> SubscribeRequest:
    return subscribe(resume=Resume(**{"session_id": ID, **said}))


BAD_SUBSCRIBE = {
    "no queues": (SubscribeRequest(), "queues", "1 to 100 entries; got 0"),
    "101 queues": (subscribe(*(f"q{n}" for n in range(101))), "queues", "got 101"),
    "bad name": (subscribe("fresh", "a:b"), "queues[1]", "1 to 63 letters"),
    "empty name": (subscribe("fresh", ""), "queues[1]", "1 to 63 letters"),
    "twice": (subscribe("fresh", "b", "fresh"), "queues[2]", "second time"),
    "no credits": (subscribe(max_in_flight=0), "max_in_flight", "1 to 1,000; got 0"),
    "negative credits": (subscribe(max_in_flight=-1), "max_in_flight", "got -1"),
    "1001 credits": (subscribe(max_in_flight=1_001), "max_in_flight", "got 1,001"),
    "long worker": (subscribe(worker="w" * 201), "worker", "200 characters; got 201"),
    "NUL worker": (subscribe(worker="a\0"), "worker", "NUL"),
    "heartbeat 0": (subscribe(heartbeat_interval=Duration()), "heartbeat_interval", "1 s to 5 minutes; got 0 s"),
    "heartbeat short": (subscribe(heartbeat_interval=Duration(nanos=999_999_999)), "heartbeat_interval", "1 s to 5"),
    "heartbeat negative": (subscribe(heartbeat_interval=Duration(seconds=-5)), "heartbeat_interval", "got -5 s"),
    "heartbeat long": (subscribe(heartbeat_interval=Duration(seconds=300, nanos=1)), "heartbeat_interval", "5 minutes"),
    "heartbeat ages": (subscribe(heartbeat_interval=Duration(seconds=2**62)), "heartbeat_interval", "5 minutes"),
    "heartbeat nanos": (subscribe(heartbeat_interval=Duration(nanos=2**31 - 1)), "heartbeat_interval", "no valid"),
    "grace negative": (subscribe(resume_grace=Duration(nanos=-1)), "resume_grace", "0 s to 15 s"),
    "grace long": (subscribe(resume_grace=Duration(seconds=15, nanos=1)), "resume_grace", "0 s to 15 s"),
    "share of another queue": (
        subscribe(shares=[QueueShare(queue="fresh"), QueueShare(queue="x")]),
        "shares[1].queue",
        "`queues`",
    ),
    "share of nothing": (subscribe(shares=[QueueShare()]), "shares[0].queue", "got ''"),
    "two shares": (subscribe(shares=[QueueShare(queue="fresh")] * 2), "shares[1].queue", "only once"),
    "101 shares": (subscribe(shares=[QueueShare(queue="fresh")] * 101), "shares", "0 to 100 entries; got 101"),
    "weight 0": (share(weight=0), "shares[0].weight", "1 to 100; got 0"),
    "weight 101": (share(weight=101), "shares[0].weight", "1 to 100; got 101"),
    "share of no job": (share(max_in_flight=0), "shares[0].max_in_flight", "1 to 1,000; got 0"),
    "share of 1001 jobs": (share(max_in_flight=1_001), "shares[0].max_in_flight", "got 1,001"),
    "priority below": (share(min_priority=-32_769), "shares[0].min_priority", "-32,768 to 32,767; got -32,769"),
    "priority above": (share(max_priority=32_768), "shares[0].max_priority", "got 32,768"),
    "no priority": (share(min_priority=2, max_priority=1), "shares[0].max_priority", "not be below `min_priority` 2"),
    "resume nobody": (resume(session_id=""), "resume.session_id", "UUID"),
    "resume malformed": (resume(session_id="my session"), "resume.session_id", "UUID"),
    "epoch negative": (resume(epoch=-1), "resume.epoch", "got -1"),
    "epoch beyond": (resume(epoch=2**63 - 1), "resume.epoch", "got 9,223,372,036,854,775,807"),
    "held malformed": (resume(held=["x"]), "resume.held[0]", "no handle"),
    "held too many": (resume(held=["x"] * 1_001), "resume.held", "0 to 1,000 entries; got 1,001"),
}


@pytest.mark.parametrize(("request_", "place", "words"), BAD_SUBSCRIBE.values(), ids=BAD_SUBSCRIBE)
async def test_subscribe(api: Api, shared_eye: Eye, request_: SubscribeRequest, place: str, words: str) -> None:
    before = shared_eye.rows()
    answer = await refused(api.queue.Subscribe(request_).read())
    assert shared_eye.rows() == before, "neither a session nor a queue"
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert answer.place == place and words in answer.message


BAD_GET = {
    "queue": (GetJobRequest(queue="a.b", job_id=ID), "queue", "1 to 63 letters"),
    "no id": (GetJobRequest(), "job_id", "UUID"),
    "malformed id": (GetJobRequest(job_id="42"), "job_id", "UUID"),
    "wait negative": (GetJobRequest(job_id=ID, wait=Duration(seconds=-1)), "wait", "0 s to 1 minute; got -1 s"),
    "wait long": (GetJobRequest(job_id=ID, wait=Duration(seconds=60, nanos=1)), "wait", "1 minute"),
    "wait ages": (GetJobRequest(job_id=ID, wait=Duration(seconds=2**63 - 1)), "wait", "1 minute"),
    "wait nanos": (GetJobRequest(job_id=ID, wait=Duration(nanos=-(2**31))), "wait", "no valid Duration"),
}


@pytest.mark.parametrize(("request_", "place", "words"), BAD_GET.values(), ids=BAD_GET)
async def test_get_job(api: Api, request_: GetJobRequest, place: str, words: str) -> None:
    answer = await refused(api.queue.GetJob(request_))
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert answer.place == place and words in answer.message


def progress(fraction: float) -> Message:
    return Extend(progress=Progress(fraction=fraction))


def checkpoint(text: str) -> Message:
    return Extend(progress=Progress(checkpoint=text))


CHECKPOINT = "items[1].extend.progress.checkpoint"


BAD_OUTCOMES: dict[str, tuple[Message | None, str, str]] = {
    "none": (None, "items[1]", "one of `complete`, `fail`, `release` and `extend`"),
    "output no JSON": (Complete(output="done"), "items[1].complete.output", "not JSON"),
    "output NUL": (Complete(output=r'"\u0000"'), "items[1].complete.output", r"\u0000"),
    "output NaN": (Complete(output="NaN"), "items[1].complete.output", "not JSON"),
    "output deep": (Complete(output="[" * 65 + "]" * 65), "items[1].complete.output", "64 levels"),
    "retry_in negative": (Fail(retry_in=Duration(seconds=-1)), "items[1].fail.retry_in", "0 s to 7 days; got -1 s"),
    "retry_in long": (Fail(retry_in=Duration(seconds=8 * DAY)), "items[1].fail.retry_in", "7 days"),
    "retry_in nanos": (Fail(retry_in=Duration(nanos=10**9)), "items[1].fail.retry_in", "no valid Duration"),
    "delay negative": (Release(delay=Duration(nanos=-1)), "items[1].release.delay", "0 s to 7 days"),
    "delay ages": (Release(delay=Duration(seconds=2**62)), "items[1].release.delay", "7 days"),
    "expire_in 0": (Extend(expire_in=Duration()), "items[1].extend.expire_in", "1 s to 7 days; got 0 s"),
    "expire_in long": (Extend(expire_in=Duration(seconds=7 * DAY, nanos=1)), "items[1].extend.expire_in", "7 days"),
    "fraction NaN": (progress(float("nan")), "items[1].extend.progress.fraction", "0 to 1; got nan"),
    "fraction inf": (progress(float("inf")), "items[1].extend.progress.fraction", "0 to 1; got inf"),
    "fraction below": (progress(-0.1), "items[1].extend.progress.fraction", "got -0.1"),
    "fraction above": (progress(1.1), "items[1].extend.progress.fraction", "got 1.1"),
    "checkpoint no JSON": (checkpoint("page 7"), CHECKPOINT, "not JSON"),
    "checkpoint blank": (checkpoint(" "), CHECKPOINT, "not JSON"),
    "checkpoint NUL": (checkpoint(r'"\u0000"'), CHECKPOINT, r"\u0000"),
    "checkpoint NaN": (checkpoint("NaN"), CHECKPOINT, "not JSON"),
    "checkpoint deep": (checkpoint("[" * 65 + "]" * 65), CHECKPOINT, "64 levels"),
    "checkpoint number": (checkpoint("0." + "0" * 1_000), CHECKPOINT, "1,000 digits"),
}


@pytest.fixture
async def held(api: Api) -> AsyncIterator[Worker]:
    """A worker with two deliveries, which no refused Ack may touch."""
    queue = f"held-{uuid4().hex}"
    await publish(api, 2, queue=queue)
    async with Worker(api, queue, max_in_flight=2, resume_grace=Duration()) as worker:
        await worker.receive(2)
        yield worker


async def ack_refused(worker: Worker, request: AckRequest, place: str, words: str) -> str:
    """How the request is refused (its reason), and that the deliveries it names are as they were."""
    answer = await refused(worker.api.queue.Ack(request))
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert answer.place == place and words in answer.message
    for delivery in worker.deliveries:
        job = (await worker.api.queue.GetJob(GetJobRequest(queue=delivery.queue, job_id=delivery.job_id))).job
        assert (job.state, job.attempt, job.session_id) == (JOB_STATE_ACTIVE, 1, worker.session_id)
        assert not job.HasField("progress") and not job.errors
    return answer.reason


@pytest.mark.parametrize(("outcome", "place", "words"), BAD_OUTCOMES.values(), ids=BAD_OUTCOMES)
async def test_ack_outcomes(held: Worker, outcome: Message | None, place: str, words: str) -> None:
    first, second = held.deliveries
    said = {type(outcome).DESCRIPTOR.name.lower(): outcome} if outcome is not None else {}
    request = AckRequest(
        items=[AckItem(handle=first.handle, complete=Complete()), AckItem(handle=second.handle, **said)]
    )
    assert await ack_refused(held, request, place, words) == "INVALID_ARGUMENT"


async def test_ack_with_too_large_an_output(held: Worker) -> None:
    first, second = held.deliveries
    large = Complete(output='"' + "x" * 65_536 + '"')
    request = AckRequest(items=[item(first, Fail()), item(second, large)])
    words = "is 65,538 bytes, the queue allows 65,536; store the content elsewhere"
    assert await ack_refused(held, request, "items[1].complete.output", words) == "DATA_TOO_LARGE"


async def test_ack_with_too_large_a_checkpoint(held: Worker) -> None:
    """The bound is its own, whatever the queue allows for payloads."""
    first, second = held.deliveries
    request = AckRequest(items=[item(first, Fail()), item(second, checkpoint('"' + "x" * 65_535 + '"'))])
    assert await ack_refused(held, request, CHECKPOINT, "is 65,537 bytes, ") == "DATA_TOO_LARGE"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda handle: "",
        lambda handle: "x",
        lambda handle: "not a handle",
        lambda handle: handle[:40],
        lambda handle: "B" + handle[1:],
        lambda handle: handle + "é",
        lambda handle: handle + "\0",
        lambda handle: handle * 100,
        lambda handle: "A" * len(handle),
    ],
    ids=["empty", "short", "words", "cut", "version", "unicode", "nul", "repeated", "zeros"],
)
async def test_ack_handles(held: Worker, spoil: Callable[[str], str]) -> None:
    first, second = held.deliveries
    items = [
        AckItem(handle=first.handle, complete=Complete()),
        AckItem(handle=spoil(second.handle), complete=Complete()),
    ]
    reason = await ack_refused(held, AckRequest(items=items), "items[1].handle", "pass it on as received")
    assert reason == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("said", "place", "words"),
    [
        ({"session_id": "mine"}, "session_id", "UUID"),
        ({"close_session": True}, "session_id", "must be set"),
        ({"max_in_flight": 5}, "session_id", "must be set"),
        ({"session_id": ID, "max_in_flight": -1}, "max_in_flight", "0 to 1,000; got -1"),
        ({"session_id": ID, "max_in_flight": 1_001}, "max_in_flight", "got 1,001"),
        ({"session_id": ID, "last_sequence": -1}, "last_sequence", "got -1"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_ack_calls(held: Worker, said: dict[str, object], place: str, words: str) -> None:
    items = [item(held.deliveries[0])]
    assert await ack_refused(held, AckRequest(items=items, **said), place, words) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("count", [1_001, 30_000])
async def test_ack_with_too_many_items(held: Worker, count: int) -> None:
    items = [item(held.deliveries[0])] * count
    words = f"0 to 1,000 entries; got {count:,}"
    assert await ack_refused(held, AckRequest(items=items), "items", words) == "INVALID_ARGUMENT"


async def test_ack_of_more_than_3_mib(held: Worker) -> None:
    items = [item(held.deliveries[0], Fail(trace="x" * 2**20))] * 3
    await ack_refused(held, AckRequest(items=items), "items", "allowed are 3,145,728; split the call")


async def test_what_is_just_allowed_is_done(api: Api) -> None:
    await publish(api, 5, queue="edges")
    async with Worker(api, "edges", max_in_flight=5) as worker:
        first, second, third, fourth, fifth = await worker.receive(5)
        week = Duration(seconds=7 * DAY)
        results = await worker.ack(
            item(first, Complete(output="[" * 64 + "]" * 64)),
            item(second, Fail(type="é" * 999, message="\0" * 9_999, trace="é" * 9_999, retry_in=week)),
            item(third, Release(delay=week)),
            item(fourth, Extend(expire_in=week, progress=Progress(fraction=1, note="\0" * 1_001))),
            item(fifth, Extend(expire_in=Duration(seconds=1), progress=Progress(fraction=-0.0))),
        )
        assert [result.status for result in results] == [ACK_STATUS_APPLIED] * 5
        unknown = await api.queue.Ack(AckRequest(session_id=str(uuid4()), max_in_flight=1_000, last_sequence=2**63 - 1))
        assert not unknown.session_alive and not unknown.results
    failed = (await api.queue.GetJob(GetJobRequest(queue="edges", job_id=second.job_id))).job.errors[0]
    assert len(failed.type) == 200 and len(failed.message) == 2_000 and len(failed.trace.encode()) <= 8_192
