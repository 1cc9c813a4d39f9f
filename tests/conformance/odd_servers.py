"""gRPC servers that are not the Jobwire that a client was made for: one that is not Jobwire, an older one, a newer one.

The last two are tests/client/scripted_server.py with less, or with more, than today's contract.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from jobwire.v1 import queue_service_pb2 as pb
from jobwire.v1.job_pb2 import Job
from tests.client.scripted_server import ScriptedServer

UNKNOWN_ENUM = 77
"""A value that no enum of the contract has."""

_LENGTH_DELIMITED = 2
_UNKNOWN_FIELD = 1000


def unknown_field(number: int = _UNKNOWN_FIELD) -> bytes:
    """A field that no message of the contract has, with a message in it, as it travels."""
    key = number << 3 | _LENGTH_DELIMITED
    content = pb.SessionOpened(session_id="of a newer contract").SerializeToString()
    return _varint(key) + _varint(len(content)) + content


def with_unknown(message: Any) -> Any:
    """The message, with a field that the contract does not know."""
    message.MergeFromString(unknown_field())
    return message


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


@asynccontextmanager
async def not_jobwire() -> AsyncIterator[str]:
    """A gRPC server that knows no call at all; yields its address."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def older() -> AsyncIterator[str]:
    """A Jobwire from before there was GetJob; yields its address."""
    scripted = ScriptedServer()
    method = grpc.unary_unary_rpc_method_handler
    publish = method(scripted.Publish, pb.PublishRequest.FromString, pb.PublishResponse.SerializeToString)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("jobwire.v1.QueueService", {"Publish": publish}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def newer() -> ScriptedServer:
    """A Jobwire with answers, enum values and fields that are still to come; not started yet."""
    server = ScriptedServer()

    def publish(request: pb.PublishRequest) -> pb.PublishResponse:
        # The first of each call is kept from being stored for a reason of its own.
        results = [with_unknown(pb.PublishResult(job_id=job.id, created=True)) for job in request.jobs]
        results[0] = with_unknown(pb.PublishResult(job_id=request.jobs[0].id, reason=UNKNOWN_ENUM))
        return with_unknown(pb.PublishResponse(results=results))

    def get_job(request: pb.GetJobRequest) -> pb.GetJobResponse:
        job = Job(id=request.job_id, queue=request.queue, state=UNKNOWN_ENUM, attempt=3, output="[1]", revision="1")
        return with_unknown(pb.GetJobResponse(job=with_unknown(job)))

    def ack(request: pb.AckRequest) -> pb.AckResponse:
        results = [with_unknown(pb.AckResult(status=UNKNOWN_ENUM, state=UNKNOWN_ENUM)) for _ in request.items]
        return with_unknown(pb.AckResponse(results=results, session_alive=True))

    server.answer_publish, server.answer_get_job, server.answer_ack = publish, get_job, ack
    return server
