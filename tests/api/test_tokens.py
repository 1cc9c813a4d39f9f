"""A server with a file of tokens: what it asks of whom, on every kind of call, and while the file is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import message_factory
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from structlog.typing import EventDict

from jobwire.v1 import admin_service_pb2, queue_service_pb2
from jobwire.v1.admin_service_pb2 import CreateQueueRequest, Queue
from jobwire.v1.operations_pb2 import ListActionsRequest
from jobwire.v1.queue_service_pb2 import AckItem, AckRequest, Complete, JobSpec, PublishRequest, SubscribeRequest
from jobwire_server import __version__

from .conftest import Api, Serve
from .http_client import get
from .refusals import refused

OPS, CI = "ops-0123456789abcdef", "ci-0123456789abcdef"
Metadata = tuple[tuple[str, str], ...]


def bearer(token: str, scheme: str = "Bearer") -> Metadata:
    return (("authorization", f"{scheme} {token}"),)


class Tokens:
    """The server's file, replaced as Kubernetes replaces a secret: another one is put in its place."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def replace(self, content: str | bytes) -> None:
        new = self.path.with_suffix(".new")
        new.write_bytes(content if isinstance(content, bytes) else content.encode())
        new.rename(self.path)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    tokens = Tokens(tmp_path / "tokens")
    tokens.replace(f"# who may call\n\nops {OPS}\n  ci\t{CI}  \n")
    return tokens


@pytest.fixture
async def guarded(serve: Serve, tokens: Tokens) -> AsyncIterator[Api]:
    async with serve(tokens_file=tokens.path) as api:
        yield api


def every_call(api: Api) -> dict[str, Callable[[Metadata | None], Any]]:
    """All methods of both services, with an empty request; of a stream the first message."""
    services = (api.queue, queue_service_pb2, "QueueService"), (api.admin, admin_service_pb2, "AdminService")
    return {
        method.name: partial(called, getattr(stub, method.name), message_factory.GetMessageClass(method.input_type)())
        for stub, file, service in services
        for method in file.DESCRIPTOR.services_by_name[service].methods
    }


def called(method: Any, request: Any, metadata: Metadata | None) -> Any:
    call = method(request, metadata=metadata)
    return call.read() if isinstance(call, grpc.aio.UnaryStreamCall) else call


async def code_with(api: Api, token: str) -> grpc.StatusCode:
    call = api.queue.Ack(AckRequest(), metadata=bearer(token))
    return await call.code()


async def until(api: Api, token: str, code: grpc.StatusCode) -> None:
    async with asyncio.timeout(60):
        while await code_with(api, token) is not code:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("metadata", "advice"),
    [
        (None, "wants a token with every call: send the metadata `authorization: Bearer TOKEN`"),
        (bearer(""), "does not know the token"),
        (bearer("s3cret-0123456789abcdef"), "does not know the token"),
        (bearer(OPS[:-1]), "does not know the token"),
        (bearer(OPS + "0"), "does not know the token"),
        (bearer("b3BzOnMzY3JldA==", "Basic"), "must be `Bearer TOKEN`"),
        ((("authorization", OPS),), "must be `Bearer TOKEN`"),
        ((("x-token", OPS),), "wants a token with every call"),
    ],
)
async def test_every_call_is_refused_without_a_token_that_is_known(
    guarded: Api, metadata: Metadata | None, advice: str, logged: list[EventDict]
) -> None:
    calls = every_call(guarded)
    assert {"Publish", "Subscribe", "GetJob", "Ack", "CreateQueue", "ListJobs", "DrainSession"} <= calls.keys()
    for name, call in calls.items():
        answer = await refused(call(metadata))
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"), name
        assert advice in answer.message
        assert answer.retry_after is None
        for secret in ("s3cret", "0123456789", "b3Bz"):
            assert secret not in answer.raw and secret not in repr(logged)


async def test_a_token_opens_unary_calls_and_streams(guarded: Api, logged: list[EventDict]) -> None:
    for metadata in (bearer(OPS), bearer(CI), bearer(OPS, "bearer"), bearer(f" {OPS} ")):
        stored = await guarded.queue.Publish(PublishRequest(queue="work", jobs=[JobSpec()]), metadata=metadata)
        assert stored.results[0].created
        stream = guarded.queue.Subscribe(SubscribeRequest(queues=["work"]), metadata=metadata)
        assert (await stream.read()).opened.server_version == __version__
        [delivery] = (await stream.read()).deliveries.deliveries
        done = AckRequest(items=[AckItem(handle=delivery.handle, complete=Complete())])
        assert len((await guarded.queue.Ack(done, metadata=metadata)).results) == 1
        stream.cancel()
    assert {line.get("caller") for line in logged if line["event"] == "call"} == {"ops", "ci", None}
    assert "0123456789" not in repr(logged)


async def test_with_a_token_a_request_is_checked_as_ever(guarded: Api) -> None:
    answer = await refused(guarded.queue.Publish(PublishRequest(queue="no name"), metadata=bearer(OPS)))
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_health_reflection_and_http_are_open(guarded: Api) -> None:
    assert await guarded.health_of("jobwire.v1.QueueService") == "SERVING"
    watch = guarded.health.Watch(HealthCheckRequest())
    assert (await watch.read()).status
    watch.cancel()
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    stream = reflection.ServerReflectionInfo()
    await stream.write(ServerReflectionRequest(list_services=""))
    assert (await stream.read()).list_services_response.service
    stream.cancel()
    assert (await get(guarded.server, "/readyz")).status == 200


async def test_without_a_file_whatever_token_comes_is_let_through(api: Api) -> None:
    await api.queue.Ack(AckRequest(), metadata=bearer("whatever"))


async def test_a_replaced_file_counts_without_a_restart(guarded: Api, tokens: Tokens) -> None:
    tokens.replace("ops new-0123456789abcdef\n")
    await until(guarded, "new-0123456789abcdef", grpc.StatusCode.OK)
    assert await code_with(guarded, OPS) is grpc.StatusCode.UNAUTHENTICATED
    assert await code_with(guarded, CI) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("broken", ["", "ops\n", "ops short\n", b"\xff\xfe\x00", None])
async def test_a_broken_new_file_leaves_the_old_tokens_and_is_an_error_in_the_log(
    guarded: Api, tokens: Tokens, logged: list[EventDict], broken: str | bytes | None
) -> None:
    if broken is None:
        tokens.path.unlink()
    else:
        tokens.replace(broken)
    async with asyncio.timeout(60):
        while not (errors := [line for line in logged if line["log_level"] == "error"]):
            assert await code_with(guarded, OPS) is grpc.StatusCode.OK
            await asyncio.sleep(0.1)
    [error] = errors
    assert error["error"].startswith("JOBWIRE_TOKENS_FILE: ")
    assert "short" not in error["error"]
    tokens.replace(f"ops {CI}\n")
    await until(guarded, OPS, grpc.StatusCode.UNAUTHENTICATED)
    assert await code_with(guarded, CI) is grpc.StatusCode.OK


async def test_a_stream_whose_token_was_taken_away_ends_with_its_heartbeats(guarded: Api, tokens: Tokens) -> None:
    terms = SubscribeRequest(queues=["work"], heartbeat_interval=Duration(seconds=1))
    stream = guarded.queue.Subscribe(terms, metadata=bearer(CI))
    session = (await stream.read()).opened.session_id
    tokens.replace(f"ops {OPS}\n")
    await until(guarded, CI, grpc.StatusCode.UNAUTHENTICATED)

    async def follow() -> None:
        while (event := await stream.read()) is not grpc.aio.EOF:
            sign = guarded.queue.Ack(AckRequest(session_id=session), metadata=bearer(CI))
            assert event.HasField("heartbeat") and await sign.code() is grpc.StatusCode.UNAUTHENTICATED

    assert (await refused(asyncio.wait_for(follow(), 60))).reason == "SESSION_LOST"


async def test_the_record_names_the_token(guarded: Api) -> None:
    def create(name: str) -> CreateQueueRequest:
        return CreateQueueRequest(queue=Queue(name=name))

    await guarded.admin.CreateQueue(create("a"), metadata=bearer(CI))
    await guarded.admin.CreateQueue(create("b"), metadata=(*bearer(CI), ("x-jobwire-actor", "ann@desk")))
    await guarded.admin.CreateQueue(create("c"), metadata=(*bearer(CI), ("x-jobwire-actor", "a" * 500)))
    answer = await guarded.admin.ListActions(ListActionsRequest(), metadata=bearer(OPS))
    long, said, unsaid = (action.actor for action in answer.actions)
    assert (unsaid, said) == ("ci", "ann@desk (token ci)")
    assert len(long) == 200 and long.endswith("a… (token ci)")
