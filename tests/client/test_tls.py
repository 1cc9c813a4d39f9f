"""Encrypted connections: credentials are used by every way to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import jobwire
from jobwire import Client, Job, Unavailable, Worker
from jobwire.v1.queue_service_pb2_grpc import add_QueueServiceServicer_to_server
from tests.client.scripted_server import ScriptedServer, delivery


def _certificate() -> tuple[bytes, bytes]:
    """A fresh key and its self-signed certificate for `localhost`, both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)


@pytest.fixture
async def encrypted() -> AsyncIterator[tuple[ScriptedServer, str, grpc.ChannelCredentials]]:
    key, certificate = _certificate()
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
