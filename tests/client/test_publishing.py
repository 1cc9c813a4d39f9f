"""Publishing: together but without shared fate, safe to repeat, split where it must be."""

from __future__ import annotations

import asyncio
import pickle
import uuid
from dataclasses import FrozenInstanceError, asdict, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobwire import Client, DeadlineExceeded, Group, InvalidArgument, JobOptions, NewJob, NotFound, Unavailable
from jobwire.convert import spec_from
from jobwire.grouping import calls
from jobwire.limits import JobLabels
from jobwire.v1 import queue_service_pb2 as pb
from jobwire.wire import MAX_CALL_BYTES
from tests.client.scripted_server import CUT, RefusalError, ScriptedServer, all_stored

BAD = RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "jobs[0].priority: too high", field="jobs[0]")


class FirstHangs:
    """Answers the first Publish only when the test says so; whatever the answer is."""

    def __init__(self) -> None:
        self.first: asyncio.Future[RefusalError | None] = asyncio.get_running_loop().create_future()
        self._calls = 0

    async def __call__(self, request: pb.PublishRequest) -> pb.PublishResponse:
        self._calls += 1
        if self._calls == 1 and (refusal := await self.first):
            raise refusal
        return all_stored(request)


LABELS = JobLabels(key="k", group=Group("g"), throttle=1, debounce=2, unique_for=3)


def test_a_new_job_is_a_plain_frozen_value() -> None:
    job_id = "0192d3a4-0000-7000-8000-000000000001"
    bare = NewJob({"n": 1}, job_id)
    full = NewJob(
        {"n": 1}, job_id, -5, datetime(2030, 1, 1, tzinfo=UTC), 7, {"a": "b"}, JobOptions(retry_limit=0), **LABELS
    )
    assert asdict(bare) == {
        "data": {"n": 1},
        "id": job_id,
        "priority": 0,
        "start_after": None,
        "start_in": None,
        "headers": None,
        "options": None,
    } | dict.fromkeys(LABELS)
    assert list(vars(full)) == [field.name for field in fields(NewJob)]
    assert bare == NewJob(data={"n": 1}, id=job_id) != full
    assert repr(NewJob(1, job_id)) == (
        f"NewJob(data=1, id='{job_id}', priority=0, start_after=None, start_in=None, headers=None, options=None, "
        "key=None, group=None, throttle=None, debounce=None, unique_for=None)"
    )
    for job in (bare, full):
        assert replace(job) == pickle.loads(pickle.dumps(job)) == job
        with pytest.raises(FrozenInstanceError):
            job.priority = 3  # type: ignore[misc]
    changed = replace(full, start_in=0, headers={})
    assert (changed.start_in, changed.headers, changed.id) == (0, {}, job_id)
    assert uuid.UUID(NewJob(1).id).version == 7
    assert NewJob(1).id != NewJob(1).id
    with pytest.raises(TypeError, match="a job has no 'kye'"):
        NewJob(1, kye="k")  # type: ignore[call-arg]


async def test_all_fields_of_a_job_travel(server: ScriptedServer, client: Client) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    published = await client.publish(
        "q",
        {"ä": [1, None]},
        id="0192d3a4-0000-7000-8000-000000000001",
        priority=-5,
        start_after=at,
        headers={"traceparent": "00-1"},
        options=JobOptions(retry_limit=0, retry_backoff=False, expire_in=60, retention=timedelta(days=2)),
    )
    assert (published.job_id, published.created, published.reason) == (
        "0192d3a4-0000-7000-8000-000000000001",
        True,
        "",
    )
    (request,) = server.publishes
    (spec,) = request.jobs
    assert request.queue == "q"
    assert spec.data == '{"ä":[1,null]}'
    assert spec.priority == -5
    assert spec.start_after.ToDatetime(UTC) == at
    assert dict(spec.headers) == {"traceparent": "00-1"}
    assert spec.options.HasField("retry_limit")
    assert (spec.options.retry_limit, spec.options.retry_backoff) == (0, False)
    assert (spec.options.expire_in.seconds, spec.options.retention.seconds) == (60, 172_800)
    assert not spec.options.HasField("retry_delay")


async def test_a_job_without_an_id_gets_one_of_version_7(server: ScriptedServer, client: Client) -> None:
    published = await client.publish("q", None, start_in=timedelta(minutes=1))
    (spec,) = server.publishes[0].jobs
    assert uuid.UUID(published.job_id).version == 7
    assert spec.id == published.job_id
    assert spec.start_in.seconds == 60


async def test_what_is_published_during_a_call_goes_out_in_the_next(server: ScriptedServer, client: Client) -> None:
    server.answer_publish = hanging = FirstHangs()
    first = asyncio.create_task(client.publish("q", 0))
    await server.arrived(pb.PublishRequest, 1)
    others = [asyncio.create_task(client.publish("q", number)) for number in range(1, 50)]
    elsewhere = await client.publish("another", "not held up")
    assert elsewhere.created
    hanging.first.set_result(None)
    results = await asyncio.gather(first, *others)
    sent = [[spec.data for spec in call.jobs] for call in server.publishes if call.queue == "q"]
    assert sent == [["0"], [str(number) for number in range(1, 50)]]
    assert [result.job_id for result in results] == [
        spec.id for call in server.publishes if call.queue == "q" for spec in call.jobs
    ]


async def test_who_was_just_answered_goes_along_with_who_waits(server: ScriptedServer, client: Client) -> None:
    server.answer_publish = hanging = FirstHangs()

    async def twice() -> None:
        await client.publish("q", "first")
        await client.publish("q", "second")

    answered = asyncio.create_task(twice())
    await server.arrived(pb.PublishRequest, 1)
    waits = asyncio.create_task(client.publish("q", "waits"))
    await asyncio.sleep(0)
    hanging.first.set_result(None)
    await asyncio.gather(answered, waits)
    assert [[spec.data for spec in call.jobs] for call in server.publishes] == [['"first"'], ['"waits"', '"second"']]


@pytest.mark.parametrize("bad", [{0}, {30}, {3, 4, 29}, set(range(31))], ids=str)
async def test_a_bad_job_harms_no_other(server: ScriptedServer, client: Client, bad: set[int]) -> None:
    stored: list[int] = []
    hanging = FirstHangs()

    async def answer(request: pb.PublishRequest) -> pb.PublishResponse:
        response = await hanging(request)
        numbers = [int(spec.data) for spec in request.jobs]
        if bad & set(numbers):
            raise BAD
        stored.extend(numbers)
        return response

    server.answer_publish = answer
    first = asyncio.create_task(client.publish("q", 99))
    await server.arrived(pb.PublishRequest, 1)
    tasks = [asyncio.create_task(client.publish("q", number)) for number in range(31)]
    await asyncio.sleep(0)
    hanging.first.set_result(None)
    await first
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert stored == [99, *(number for number in range(31) if number not in bad)]
    assert {number for number, result in enumerate(results) if isinstance(result, InvalidArgument)} == bad
    # A later group is whole again.
    before = len(server.publishes)
    later = [asyncio.create_task(client.publish("q", number)) for number in range(100, 120)]
    await asyncio.gather(*later)
    assert len(server.publishes) - before <= 2


async def test_a_failed_call_is_repeated_with_the_same_ids(server: ScriptedServer, client: Client) -> None:
    refusals = [
        CUT,
        RefusalError(grpc.StatusCode.ABORTED, "LOCK_TIMEOUT", retry_after=0.01),
        RefusalError(grpc.StatusCode.DEADLINE_EXCEEDED),
    ]

    def answer(request: pb.PublishRequest) -> pb.PublishResponse:
        if refusals:
            raise refusals.pop()
        return pb.PublishResponse(
            results=[
                pb.PublishResult(
                    job_id=job.id,
                    reason=pb.NOT_CREATED_REASON_DUPLICATE_ID,
                    met_job_id=job.id,
                    data_differs=True,
                )
                for job in request.jobs
            ]
        )

    server.answer_publish = answer
    published = await client.publish("q", {"n": 1})
    assert (published.created, published.reason, published.met_job_id, published.data_differs) == (
        False,
        "duplicate_id",
        published.job_id,
        True,
    )
    assert [spec.id for call in server.publishes for spec in call.jobs] == [published.job_id] * 4


async def test_a_group_is_repeated_without_those_that_gave_up(server: ScriptedServer, client: Client) -> None:
    server.answer_publish = hanging = FirstHangs()
    first = asyncio.create_task(client.publish("q", "first"))
    await server.arrived(pb.PublishRequest, 1)
    gone = asyncio.create_task(client.publish("q", "gone"))
    stays = asyncio.create_task(client.publish("q", "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    hanging.first.set_result(CUT)
    await asyncio.gather(first, stays)
    assert [spec.data for call in server.publishes[1:] for spec in call.jobs] == ['"first"', '"stays"']


async def test_an_error_that_repeating_does_not_help_is_raised_to_all(server: ScriptedServer, client: Client) -> None:
    def answer(request: pb.PublishRequest) -> pb.PublishResponse:
        raise RefusalError(grpc.StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND", "queue 'q' does not exist: create it first")

    server.answer_publish = answer
    results = await asyncio.gather(*(client.publish("q", number) for number in range(5)), return_exceptions=True)
    assert all(isinstance(result, NotFound) and result.reason == "QUEUE_NOT_FOUND" for result in results)
    assert str(results[0]) == "queue 'q' does not exist: create it first"


async def never(_: pb.PublishRequest) -> pb.PublishResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def test_no_answer_within_the_timeout(server: ScriptedServer) -> None:
    server.answer_publish = never
    async with Client(server.address, timeout=0.1) as client:
        with pytest.raises(DeadlineExceeded, match="same id is safe"):
            await client.publish("q", 1)


async def test_each_publish_has_a_time_of_its_own(server: ScriptedServer) -> None:
    gate = asyncio.Event()

    async def answer(request: pb.PublishRequest) -> pb.PublishResponse:
        await gate.wait()
        return all_stored(request)

    server.answer_publish = answer
    async with Client(server.address, timeout=1.0) as client:
        first = asyncio.create_task(client.publish("q", 1))
        await asyncio.sleep(0.6)
        second = asyncio.create_task(client.publish("q", 2))
        with pytest.raises(DeadlineExceeded):
            await first
        assert not second.done()
        gate.set()
        assert (await second).created
        # Nothing is left of the time that is over.
        assert (await client.publish("q", 3)).created


async def test_nobody_there_names_the_address_and_what_to_look_at(server: ScriptedServer) -> None:
    await server.stop()
    async with Client(server.address, timeout=0.3) as client:
        with pytest.raises(Unavailable, match=f"cannot reach Jobwire at {server.address}.*is it running"):
            await client.publish("q", 1)
        with pytest.raises(Unavailable, match=server.address):
            await client.publish_many("q", [NewJob(1)])


async def test_a_client_that_closes_lets_publishes_arrive(server: ScriptedServer) -> None:
    async with Client(server.address) as client:
        publishing = asyncio.create_task(client.publish("q", 1))
        await asyncio.sleep(0)
    assert (await publishing).created
    with pytest.raises(RuntimeError, match="closed"):
        await client.publish("q", 2)


async def test_many_jobs_are_split_in_order(server: ScriptedServer, client: Client) -> None:
    seen: list[tuple[int, int]] = []
    jobs = [NewJob({"n": number}) for number in range(2500)]
    published = await client.publish_many("q", jobs, on_progress=lambda done, total: seen.append((done, total)))
    assert [len(call.jobs) for call in server.publishes] == [1000, 1000, 500]
    assert [result.job_id for result in published] == [job.id for job in jobs]
    assert seen == [(1000, 2500), (2000, 2500), (2500, 2500)]


async def test_publishing_the_same_jobs_again_sends_the_same_ids(server: ScriptedServer, client: Client) -> None:
    jobs = [NewJob(1), NewJob(2, id="0192d3a4-0000-7000-8000-000000000001")]
    await client.publish_many("q", jobs)
    await client.publish_many("q", iter(jobs))
    first, second = server.publishes
    assert first == second
    assert await client.publish_many("q", []) == []


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 1024) | st.integers(128 * 1024, 512 * 1024 - 2), min_size=10, max_size=40))
def test_calls_keep_order_and_fit(sizes: list[int]) -> None:
    jobs = [NewJob("x" * size) for size in sizes]
    requests = calls("q" * 63, jobs)
    assert [spec for request in requests for spec in request.jobs] == [spec_from(job) for job in jobs]
    assert all(request.queue == "q" * 63 for request in requests)
    assert all(request.jobs and request.ByteSize() <= MAX_CALL_BYTES + 4096 for request in requests)
    # No call could have taken the next job too.
    for request, following in pairwise(requests):
        assert sum(spec.ByteSize() + 5 for spec in [*request.jobs, following.jobs[0]]) > MAX_CALL_BYTES


@pytest.mark.parametrize(
    ("job", "reason", "advice"),
    [
        (NewJob({1: {2}}), "INVALID_ARGUMENT", "turn it into dict, list, str"),
        (NewJob(float("inf")), "INVALID_ARGUMENT", "no infinity"),
        (NewJob("\udfff"), "INVALID_ARGUMENT", "half a surrogate pair"),
        (NewJob("x" * 600_000), "DATA_TOO_LARGE", "600002 bytes of JSON, but at most 524288 are taken"),
        (NewJob(1, start_after=datetime(2030, 1, 1)), "INVALID_ARGUMENT", "no time zone"),  # noqa: DTZ001
        (NewJob(1, start_after=datetime.now(UTC), start_in=1), "INVALID_ARGUMENT", "exclude each other"),
        (NewJob(1, start_in=float("inf")), "INVALID_ARGUMENT", "no span of time"),
        (NewJob(1, priority=2**40), "INVALID_ARGUMENT", "2"),
        (NewJob(1, headers={"a": 1}), "INVALID_ARGUMENT", "headers are strings"),  # type: ignore[dict-item]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_travel_is_refused_on_the_spot(
    server: ScriptedServer, client: Client, job: NewJob, reason: str, advice: str
) -> None:
    with pytest.raises(InvalidArgument, match=advice) as caught:
        await client.publish_many("q", [NewJob(1), job])
    assert caught.value.reason == reason
    assert isinstance(caught.value, ValueError)
    assert server.publishes == []
