"""Whatever is sent to whichever method: an answer or a refusal of the contract, never INTERNAL or UNKNOWN.

`JOBWIRE_FUZZ_EXAMPLES` sets how many requests each test sends (default 150), `JOBWIRE_FUZZ_SEED` which ones.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator

import grpc
import pytest
import structlog
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from jobwire.v1 import admin_service_pb2, queue_service_pb2
from jobwire.v1.job_pb2 import JOB_STATE_COMPLETED
from jobwire.v1.queue_service_pb2 import ACK_STATUS_APPLIED, GetJobRequest
from jobwire.v1.schedule_pb2 import PutScheduleRequest, Schedule
from tests.conftest import Postgres

from .conftest import Api
from .refusals import read
from .wild import QUEUES, Live, bites, bitten, messages
from .worker import Worker, publish

# Taken out of the environment: a server that another test starts as a process would refuse to know them.
EXAMPLES = int(os.environ.pop("JOBWIRE_FUZZ_EXAMPLES", "150"))
SEED = int(os.environ.pop("JOBWIRE_FUZZ_SEED", "20240229"))

METHODS = {
    method.full_name.removeprefix("jobwire.v1."): method
    for service in (
        queue_service_pb2.DESCRIPTOR.services_by_name["QueueService"],
        admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
    )
    for method in service.methods
}
CONTRACT = {
    grpc.StatusCode.INVALID_ARGUMENT: {"INVALID_ARGUMENT", "DATA_TOO_LARGE", "UNKNOWN_FIELD"},
    grpc.StatusCode.NOT_FOUND: {"QUEUE_NOT_FOUND", "JOB_NOT_FOUND", "SESSION_LOST", "SCHEDULE_NOT_FOUND"},
    grpc.StatusCode.ABORTED: {"SESSION_TAKEN_OVER"},
    grpc.StatusCode.FAILED_PRECONDITION: {
        "CONFIRMATION_REQUIRED",
        "QUEUE_BUSY",
        "QUEUE_NOT_EMPTY",
        "QUEUE_REFERENCED",
    },
    grpc.StatusCode.RESOURCE_EXHAUSTED: {"TOO_MANY_SESSIONS", "QUEUE_FULL"},
}
"""What a server in good health may refuse with, and for which reasons."""
SCHEDULED = PutScheduleRequest(schedule=Schedule(name="fuzz", queue="fuzz", every=Duration(seconds=3_600)))
"""There is a schedule of this name whenever one may be asked for."""
STOCK = "stock"
"""A queue that no request names, so that none pauses it, limits it or makes its jobs wait for each other."""
WAIT = 0.1
"""So long a GetJob call that asks for it is left waiting, in seconds."""

pytestmark = pytest.mark.timeout(60 + EXAMPLES)
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


class Target:
    """A server under fire, with a worker of its own whose handles and session are among what is sent."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.live = Live()
        self.outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """How requests were answered, by method."""
        self._worker: Worker | None = None

    async def stock(self) -> None:
        """Sees to it that there are deliveries to speak of."""
        if self._worker is not None and (self._worker.ended or len(self._worker.deliveries) > 500):
            await self.leave()
        if self._worker is None:
            self._worker = await Worker(self.api, STOCK, *QUEUES, max_in_flight=1_000).__aenter__()
            self.live.sessions[:] = [self._worker.session_id, *self.live.sessions[:1]]
        await publish(self.api, queue=STOCK, data="0")
        self.live.handles[:] = [delivery.handle for delivery in self._worker.deliveries[-4:]]

    async def request(self, message: Message) -> bytes:
        """A message as it is sent, with what exists in place of its placeholders."""
        if message.DESCRIPTOR.name.endswith("ScheduleRequest"):
            await self.api.admin.PutSchedule(SCHEDULED)
        if "<" in str(message):
            await self.stock()
            self.live.fill(message)
        return message.SerializeToString()

    async def leave(self) -> None:
        if self._worker is not None:
            await self._worker.__aexit__()
            self._worker = None

    async def send(self, method: MethodDescriptor, body: bytes) -> None:
        """Sends bytes as a request. Fails if the contract does not know the answer."""
        self.outcomes[method.name][await self._outcome(method, body)] += 1

    async def _outcome(self, method: MethodDescriptor, body: bytes) -> str:
        path = f"/{method.containing_service.full_name}/{method.name}"
        waits = _waits(method, body)
        try:
            if method.server_streaming:
                call = self.api.channel.unary_stream(path)(body, timeout=30)
                message = method.output_type._concrete_class.FromString(await call.read())
                assert message.WhichOneof("event") == "opened" and message.sequence == 1
                call.cancel()
            else:
                call = self.api.channel.unary_unary(path)(body, timeout=WAIT if waits else 30)
                method.output_type._concrete_class.FromString(await call)
        except grpc.aio.AioRpcError as error:
            if waits and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return "waited"
            return known(error)
        return "OK"

    async def still_serves(self) -> None:
        """A job goes through from its publication to its end."""
        [job_id] = await publish(self.api, queue="after-the-fire")
        async with Worker(self.api, "after-the-fire") as worker:
            [delivery] = await worker.receive(1)
            assert delivery.job_id == job_id
            assert await worker.complete(delivery) == [ACK_STATUS_APPLIED]
        job = (await self.api.queue.GetJob(GetJobRequest(job_id=job_id))).job
        assert job.state == JOB_STATE_COMPLETED


def known(error: grpc.aio.AioRpcError) -> str:
    """The reason of a refusal. Fails if the contract does not know it, or if it does not say what is wrong."""
    assert error.code() in CONTRACT, error
    refusal = read(error)
    assert refusal.reason in CONTRACT[refusal.code], refusal
    assert len(refusal.message.encode()) <= 1_000
    assert all(place and rule for place, rule in refusal.violations)
    assert bool(refusal.violations) == (refusal.code is grpc.StatusCode.INVALID_ARGUMENT)
    return refusal.reason


def _waits(method: MethodDescriptor, body: bytes) -> bool:
    """Whether a request asks to be left waiting."""
    if method.name != "GetJob":
        return False
    try:
        return GetJobRequest.FromString(body).wait != Duration()
    except DecodeError:
        return False


@pytest.fixture(scope="module")
async def target(api: Api, postgres: Postgres) -> AsyncIterator[Target]:
    """The server is asked at the end whether it is well, and the logs whether it was all the time."""
    print(f"JOBWIRE_FUZZ_SEED={SEED} JOBWIRE_FUZZ_EXAMPLES={EXAMPLES}")  # noqa: T201
    log_before = postgres.log_size()
    # Nobody else publishes, so nothing comes late to a queue that is deleted.
    api.server._broker.queue_removal.later_seconds = 0.0
    target = Target(api)
    with structlog.testing.capture_logs([structlog.processors.format_exc_info]) as logged:
        yield target
        await target.leave()
        await target.still_serves()
    for line in (bad := [line for line in logged if line["log_level"] in ("error", "critical")]):
        print(line.pop("exception", ""))  # noqa: T201
    assert not bad
    # A day without its part of the archive is noticed by this error, and made then.
    assert not [line for line in postgres.errors(log_before) if "no partition of relation" not in line]
    if EXAMPLES >= 100:
        # Else all was refused at the door, and nothing of what is behind it was tried.
        assert all(outcomes["OK"] for outcomes in target.outcomes.values()), target.outcomes


@seed(SEED)
@fuzz
@given(data=st.data())
@pytest.mark.parametrize("name", METHODS)
async def test_wild_values(target: Target, name: str, data: st.DataObject) -> None:
    await target.send(METHODS[name], await target.request(data.draw(messages(METHODS[name].input_type))))


@seed(SEED)
@fuzz
@given(data=st.data())
@pytest.mark.parametrize("name", METHODS)
async def test_damaged_bytes(target: Target, name: str, data: st.DataObject) -> None:
    message, damage = data.draw(messages(METHODS[name].input_type)), data.draw(bites())
    await target.send(METHODS[name], bitten(await target.request(message), damage))


@seed(SEED)
@fuzz
@given(name=st.sampled_from(sorted(METHODS)), body=st.binary(max_size=200))
async def test_noise(target: Target, name: str, body: bytes) -> None:
    await target.send(METHODS[name], body)


@seed(SEED)
@fuzz
@given(data=st.data())
async def test_wild_values_from_several_clients_at_once(target: Target, data: st.DataObject) -> None:
    """They name the same few jobs, handles and sessions, so they meet in the database."""
    methods = [METHODS[name] for name in data.draw(st.lists(st.sampled_from(sorted(METHODS)), max_size=6))]
    bodies = [await target.request(data.draw(messages(method.input_type))) for method in methods]
    await asyncio.gather(*map(target.send, methods, bodies))
