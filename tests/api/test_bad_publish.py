"""What Publish refuses: with the field's path, the rule and what to do, and with nothing stored."""

from __future__ import annotations

import re
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobwire.v1.admin_service_pb2 import QUEUE_POLICY_KEY_STRICT_FIFO, CreateQueueRequest, Queue
from jobwire.v1.job_pb2 import JobGroup, JobOptions
from jobwire.v1.queue_service_pb2 import JobSpec, PublishRequest

from .conftest import Api, Eye
from .refusals import Refusal, refused

DAY = 86_400
NAME_RULE = r"1 to 63 letters, digits, `_` or `-`"


def publish(*specs: JobSpec, queue: str = "work") -> PublishRequest:
    return PublishRequest(queue=queue, jobs=specs)


def second(**spec: object) -> PublishRequest:
    """Two jobs, of which only the second is bad."""
    return publish(JobSpec(data="1"), JobSpec(**spec))


def options(**said: object) -> PublishRequest:
    return second(options=JobOptions(**said))


async def refusal(api: Api, eye: Eye, request: PublishRequest) -> Refusal:
    """How the request is refused, and that it left nothing behind, not even its queue."""
    before = eye.rows()
    answer = await refused(api.queue.Publish(request))
    assert eye.rows() == before
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert answer.retry_after is None, "repeating it cannot help"
    assert answer.message == "; ".join(f"{place}: {rule}" for place, rule in answer.violations)
    return answer


BAD_NAMES = [
    "",
    ":",
    "a:b",
    "a.b",
    "a b",
    " a",
    "a ",
    "a\n",
    "a\0",
    "a/b",
    "größe",
    "作业",
    "\uff11",
    "x" * 64,
    "x" * 99_999,
]


@pytest.mark.parametrize(
    "queue",
    BAD_NAMES,
    ids=lambda name: f"{name[:12]!a}",
)
async def test_queue_names(api: Api, shared_eye: Eye, queue: str) -> None:
    answer = await refusal(api, shared_eye, publish(JobSpec(), queue=queue))
    assert (answer.reason, answer.place) == ("INVALID_ARGUMENT", "queue")
    assert NAME_RULE in answer.message
    assert len(answer.message) < 600, "what was sent is quoted, but not at any length"


@pytest.mark.parametrize("count", [0, 1_001, 100_000])
async def test_batch_sizes(api: Api, shared_eye: Eye, count: int) -> None:
    answer = await refusal(api, shared_eye, PublishRequest(queue="work", jobs=[JobSpec()] * count))
    assert (answer.reason, answer.place) == ("INVALID_ARGUMENT", "jobs")
    assert f"1 to 1,000 entries; got {count:,}" in answer.message


@pytest.mark.parametrize(
    "data",
    [
        *("{", "nope", "{'a':1}", "[1,]", '{"a":1,}', "{1:2}", "1 2", " ", "\n", "01", "+1", "1.", ".5", "0x1", "True"),
        *('"a', '"\t"', '"\0"', r'"\x"', r'"\u12"', "\ufeff1", "\u00a01", "// a\n1"),
        *("NaN", "Infinity", "-Infinity", '{"a":[NaN]}', "1e400", "-1e400", "1" * 1_001, "1e-99999", "[0e1000]"),
        *(
            r'"\u0000"',
            r'{"a\u0000":1}',
            r'["\\\u0000"]',
            r'"\ud800"',
            r'"\ud800x"',
            r'"\udc00\ud800"',
            r'{"\uDFFF":0}',
        ),
        *("[" * 65 + "]" * 65, '{"a":' * 65 + "0" + "}" * 65, '[{"a":' * 33 + "0" + "}]" * 33, "[" * 20_000),
    ],
    ids=lambda data: f"{data[:16]!a}",
)
async def test_payloads_that_are_no_json_that_jsonb_takes(api: Api, shared_eye: Eye, data: str) -> None:
    answer = await refusal(api, shared_eye, second(data=data))
    assert (answer.reason, answer.place) == ("INVALID_ARGUMENT", "jobs[1].data")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("nope", "not JSON"),
        (r'"\u0000"', r"\u0000"),
        ("[" * 65 + "]" * 65, "64 levels"),
        ("[0." + "1" * 1_001 + "]", "1,000 digits"),
        ('{"a":1e400}', "number"),
    ],
    ids=["json", "nul", "deep", "long", "vast"],
)
async def test_payloads_are_refused_with_the_rule_they_break(api: Api, shared_eye: Eye, data: str, words: str) -> None:
    assert words in (await refusal(api, shared_eye, second(data=data))).message


@pytest.mark.parametrize("data", ['"' + "x" * 65_535 + '"', '"' + "é" * 32_768 + '"', "[" * 65_537], ids="xé[")
async def test_too_large_payloads_name_size_limit_and_advice(api: Api, shared_eye: Eye, data: str) -> None:
    answer = await refusal(api, shared_eye, second(data=data))
    assert (answer.reason, answer.place) == ("DATA_TOO_LARGE", "jobs[1].data")
    assert f"{len(data.encode()):,} bytes" in answer.message and "65,536" in answer.message
    assert "store the content elsewhere" in answer.message and "send its key" in answer.message


async def test_a_queue_has_its_own_limit_for_payloads(api: Api, shared_eye: Eye) -> None:
    queue = Queue(name="tiny", max_data_bytes=10)
    await api.admin.CreateQueue(CreateQueueRequest(queue=queue))
    answer = await refusal(api, shared_eye, publish(JobSpec(data='"123456789"'), queue="tiny"))
    assert answer.reason == "DATA_TOO_LARGE" and "is 11 bytes, the queue allows 10" in answer.message
    await api.queue.Publish(publish(JobSpec(data='"12345678"'), queue="tiny"))


HUGE = 2**62

BAD_FIELDS = {
    "id words": (second(id="job-1"), "jobs[1].id", "must be a UUID such as"),
    "id braces": (second(id="{01890a5d-ac96-774b-bcce-b302099a8057}"), "jobs[1].id", "UUID"),
    "id without hyphens": (second(id="01890a5dac96774bbcceb302099a8057"), "jobs[1].id", "UUID"),
    "id urn": (second(id="urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057"), "jobs[1].id", "UUID"),
    "id odd digits": (second(id="\u06601890a5d-ac96-774b-bcce-b302099a8057"), "jobs[1].id", "UUID"),
    "id newline": (second(id="01890a5d-ac96-774b-bcce-b302099a8057\n"), "jobs[1].id", "UUID"),
    "priority high": (second(priority=32_768), "jobs[1].priority", "-32,768 to 32,767; got 32,768"),
    "priority low": (second(priority=-32_769), "jobs[1].priority", "got -32,769"),
    "priority int32": (second(priority=-(2**31)), "jobs[1].priority", "got -2,147,483,648"),
    "start_in negative": (second(start_in=Duration(seconds=-1)), "jobs[1].start_in", "0 s to 3,650 days; got -1 s"),
    "start_in hair below": (second(start_in=Duration(nanos=-1)), "jobs[1].start_in", "0 s to 3,650 days"),
    "start_in hair above": (second(start_in=Duration(seconds=3650 * DAY, nanos=1)), "jobs[1].start_in", "3,650 days"),
    "start_in ages": (second(start_in=Duration(seconds=HUGE)), "jobs[1].start_in", "3,650 days"),
    "start_in least": (second(start_in=Duration(seconds=-(2**63))), "jobs[1].start_in", "3,650 days"),
    "start_in nanos": (second(start_in=Duration(nanos=10**9)), "jobs[1].start_in", "no valid Duration"),
    "start_in signs": (second(start_in=Duration(seconds=1, nanos=-1)), "jobs[1].start_in", "no valid Duration"),
    "start_after nanos": (second(start_after=Timestamp(nanos=10**9)), "jobs[1].start_after", "no valid Timestamp"),
    "start_after nanos -1": (second(start_after=Timestamp(nanos=-1)), "jobs[1].start_after", "no valid Timestamp"),
    "start_after huge": (second(start_after=Timestamp(seconds=HUGE)), "jobs[1].start_after", "no valid Timestamp"),
    "start_after least": (second(start_after=Timestamp(seconds=-(2**63))), "jobs[1].start_after", "year 1 to 9999"),
    "start_after year 0": (second(start_after=Timestamp(seconds=-62_135_596_801)), "jobs[1].start_after", "year 1"),
    "start_after year 9999": (second(start_after=Timestamp(seconds=253_402_300_799)), "jobs[1].start_after", "3,650"),
    "headers 21": (second(headers={str(n): "" for n in range(21)}), "jobs[1].headers", "0 to 20 entries; got 21"),
    "header nameless": (second(headers={"": "x"}), "jobs[1].headers", "names of 1 to 100 characters"),
    "header name long": (second(headers={"n" * 101: "x"}), "jobs[1].headers", "101 characters long"),
    "header name NUL": (second(headers={"a\0": "x"}), "jobs[1].headers", "none of them NUL"),
    "header value long": (second(headers={"n": "x" * 1_001}), "jobs[1].headers['n']", "1,000 characters; got 1,001"),
    "header value NUL": (second(headers={"n": "\0"}), "jobs[1].headers['n']", "NUL"),
    "key long": (second(key="k" * 201), "jobs[1].key", "at most 200 characters; got 201"),
    "key NUL": (second(key="a\0"), "jobs[1].key", "NUL"),
    "group without id": (second(group=JobGroup(tier="gold")), "jobs[1].group.id", "must be set"),
    "group long": (second(group=JobGroup(id="g" * 201)), "jobs[1].group.id", "at most 200 characters; got 201"),
    "group NUL": (second(group=JobGroup(id="\0")), "jobs[1].group.id", "NUL"),
    "tier long": (second(group=JobGroup(id="g", tier="t" * 201)), "jobs[1].group.tier", "at most 200"),
    "tier NUL": (second(group=JobGroup(id="g", tier="\0")), "jobs[1].group.tier", "NUL"),
    "dead_letter": (options(dead_letter="a.b"), "jobs[1].options.dead_letter", "1 to 63 letters"),
    **{
        f"{name} {what}": (second(**{name: Duration(seconds=seconds, nanos=nanos)}), f"jobs[1].{name}", rule)
        for name in ("throttle", "debounce", "unique_for")
        for what, seconds, nanos, rule in (
            ("0", 0, 0, "1 ms to 365 days; got 0 s"),
            ("hair below", 0, 999_999, "1 ms to 365 days"),
            ("negative", -60, 0, "got -60 s"),
            ("above", 365 * DAY, 1, "365 days"),
            ("nanos", 2, -5, "no valid Duration"),
        )
    },
    "retry_limit -1": (options(retry_limit=-1), "jobs[1].options.retry_limit", "0 to 1,000; got -1"),
    "retry_limit 1001": (options(retry_limit=1_001), "jobs[1].options.retry_limit", "got 1,001"),
    "retry_limit int32": (options(retry_limit=2**31 - 1), "jobs[1].options.retry_limit", "got 2,147,483,647"),
    "expire_in 0": (options(expire_in=Duration()), "jobs[1].options.expire_in", "1 s to 7 days; got 0 s"),
    "expire_in hair below": (options(expire_in=Duration(nanos=999_999_999)), "jobs[1].options.expire_in", "1 s to 7"),
    "retention years": (options(retention=Duration(seconds=3651 * DAY)), "jobs[1].options.retention", "3,650 days"),
    "retention -1": (options(retention=Duration(seconds=-1)), "jobs[1].options.retention", "0 s to 3,650 days"),
    **{
        f"{name} {what}": (options(**{name: Duration(seconds=seconds, nanos=nanos)}), f"jobs[1].options.{name}", rule)
        for name in ("retry_delay", "retry_delay_max", "expire_in")
        for what, seconds, nanos, rule in (
            ("negative", -1, 0, "to 7 days; got -1 s"),
            ("above", 7 * DAY, 1, "to 7 days"),
            ("nanos", 2, -5, "no valid Duration"),
        )
    },
}


@pytest.mark.parametrize(("request_", "place", "words"), BAD_FIELDS.values(), ids=BAD_FIELDS)
async def test_fields(api: Api, shared_eye: Eye, request_: PublishRequest, place: str, words: str) -> None:
    answer = await refusal(api, shared_eye, request_)
    assert (answer.reason, answer.place) == ("INVALID_ARGUMENT", place)
    assert words in answer.message


async def test_what_is_just_allowed_is_stored(api: Api) -> None:
    edges = [
        JobSpec(id=str(uuid4()).upper(), data="[" * 64 + "]" * 64, priority=32_767, start_in=Duration()),
        JobSpec(data='"' + "x" * 65_534 + '"', priority=-32_768, start_in=Duration(seconds=3650 * DAY)),
        JobSpec(data=r'"\\u0000 \ud83d\ude00"', start_after=Timestamp(seconds=-62_135_596_800)),
        JobSpec(headers={f"{n:ä<100}": "é" * 1_000 for n in range(20)}),
        JobSpec(
            options=JobOptions(
                retry_limit=1_000,
                retry_delay=Duration(seconds=7 * DAY),
                retry_delay_max=Duration(seconds=7 * DAY),
                expire_in=Duration(seconds=7 * DAY),
                retention=Duration(seconds=3650 * DAY),
            )
        ),
        JobSpec(key="é" * 200, group=JobGroup(id="ü" * 200, tier="ö" * 200), throttle=Duration(nanos=1_000_000)),
        JobSpec(key="another", unique_for=Duration(seconds=365 * DAY)),
        JobSpec(options=JobOptions(retry_limit=0, expire_in=Duration(seconds=1), retention=Duration())),
    ]
    answer = await api.queue.Publish(publish(*edges, queue="x" * 63))
    assert [result.created for result in answer.results] == [True] * len(edges)
    answer = await api.queue.Publish(PublishRequest(queue="-_9", jobs=[JobSpec()] * 1_000))
    assert len({result.job_id for result in answer.results}) == 1_000


async def test_a_queue_that_keeps_the_order_of_keys_takes_no_job_without_one(api: Api, shared_eye: Eye) -> None:
    queue = Queue(name="ordered", policy=QUEUE_POLICY_KEY_STRICT_FIFO)
    await api.admin.CreateQueue(CreateQueueRequest(queue=queue))
    answer = await refusal(api, shared_eye, publish(JobSpec(key="k"), JobSpec(), queue="ordered"))
    assert (answer.reason, answer.place) == ("INVALID_ARGUMENT", "jobs[1].key")


async def test_a_request_of_more_than_3_mib(api: Api, shared_eye: Eye) -> None:
    job = JobSpec(data='"' + "x" * 65_000 + '"')
    request = PublishRequest(queue="work", jobs=[job] * 49)
    answer = await refusal(api, shared_eye, request)
    assert (answer.reason, answer.place) == ("INVALID_ARGUMENT", "jobs")
    assert f"{request.ByteSize():,} bytes" in answer.message and "3,145,728" in answer.message
    assert "split the call" in answer.message
    del request.jobs[48:]
    await api.queue.Publish(request)


async def test_a_request_beyond_what_grpc_takes_is_refused_with_size_and_limit(api: Api, shared_eye: Eye) -> None:
    before = shared_eye.rows()
    request = PublishRequest(queue="work", jobs=[JobSpec(data="x" * 2**20)] * 4)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.queue.Publish(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert re.search(rf"larger than max \({request.ByteSize()} vs\. {4 * 2**20}\)", caught.value.details() or "")
    assert shared_eye.rows() == before
    await api.queue.Publish(publish(JobSpec()))
