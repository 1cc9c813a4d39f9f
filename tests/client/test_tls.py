"""Encrypted connections: credentials are used by every way to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

import jobwire
from jobwire import Client, Job, Unavailable, Worker
from jobwire.v1.queue_service_pb2_grpc import add_QueueServiceServicer_to_server
from tests.certificates import new_certificate
from tests.client.scripted_server import ScriptedServer, delivery


@pytest.fixture
async def encrypted() -> AsyncIterator[tuple[ScriptedServer, str, grpc.ChannelCredentials]]:
    key, certificate = new_certificate()
    scripted = ScriptedServer()
    grpc_server = grpc.aio.server()
    add_QueueServiceServicer_to_server(scripted, grpc_server)
    port = grpc_server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
    await grpc_server.start()
    yield scripted, f"localhost:{port}", grpc.ssl_channel_credentials(certificate)
    await grpc_server.stop(None)


async def test_client_worker_and_functions_speak_tls(
    encrypted: tuple[ScriptedServer, str, grpc.ChannelCredentials],
) -> None:
    server, target, tls = encrypted
    async with Client(target, tls=tls) as client:
        assert (await client.publish("q", 1)).created
    assert (await asyncio.to_thread(jobwire.publish, target, "q", 1, tls=tls)).created
    worker = Worker(target, tls=tls)

    @worker.handler("q")
    async def handle(job: Job) -> str:
        return "secret"

    async with worker:
        stream = await server.opened()
        await stream.deliver(delivery("h-1"))
        assert (await server.settled("h-1")).complete.output == '"secret"'


async def test_without_credentials_the_error_names_tls(
    encrypted: tuple[ScriptedServer, str, grpc.ChannelCredentials],
) -> None:
    _, target, _ = encrypted
    async with Client(target, timeout=0.3) as client:
        with pytest.raises(Unavailable, match=f"{target} .*are address and TLS right"):
            await client.publish("q", 1)
