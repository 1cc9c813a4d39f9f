"""The gRPC server: both services, health and reflection behind the boundary, on one port.

It listens as soon as it is entered. Until it is opened, because the broker waits for its database, our services answer
UNAVAILABLE; health says NOT_SERVING until the broker is ready, whenever its database is away, and from its drain on.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from jobwire.v1 import admin_service_pb2, queue_service_pb2
from jobwire.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from jobwire.v1.queue_service_pb2_grpc import add_QueueServiceServicer_to_server
from jobwire_server.api import reflection
from jobwire_server.api.admin_servicer import AdminServicer
from jobwire_server.api.bearers import Bearers
from jobwire_server.api.boundary import CallBoundary
from jobwire_server.api.calls import CallObserver
from jobwire_server.api.queue_servicer import QueueServicer
from jobwire_server.broker.broker import Broker
from jobwire_server.domain import limits
from jobwire_server.domain.errors import DatabaseUnavailable, Draining, JobwireError

SERVICES = (
    queue_service_pb2.DESCRIPTOR.services_by_name["QueueService"].full_name,
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
)

_PUBLISH = f"/{SERVICES[0]}/Publish"

_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC's core obeys this one, not the timeout above.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients may ping as often as this; by default they would be sent away for more than once in five minutes.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_receive_message_length", limits.RECEIVE_BYTES),
    # Otherwise a second server on the same port would be given half of the connections, silently.
    ("grpc.so_reuseport", 0),
)

_QUIET_SECONDS = 0.015
_QUIET_TURNS = 10
"""A moment without calls lasts for so long, and for so many turns of the event loop, which a call needs to get here."""
_SERVING_SECONDS = 1.0
_REFUSING_SECONDS = 0.25
"""How long such a moment is waited for while calls are served, and then while they are refused."""


class GrpcServer:
    """Serves one broker; an async context manager that listens inside it.

    `listen` is `host:port`, port 0 takes a free one. With `tls` it speaks TLS only; with `bearers` our services want
    one of their tokens. Raises OSError if the address cannot be had.
    """

    def __init__(
        self,
        broker: Broker,
        observer: CallObserver,
        listen: str,
        *,
        tls: grpc.ServerCredentials | None = None,
        bearers: Bearers | None = None,
    ) -> None:
        self._broker = broker
        self._listen = listen
        self._tls = tls
        name_of = None if bearers is None else bearers.name_of
        self._boundary = CallBoundary(observer, self._refusal, {_PUBLISH: broker.admission.turn}, name_of)
        self._server = grpc.aio.server(options=_OPTIONS, interceptors=[self._boundary])
        self._opened = False
        self._refusing = False
        self._health = health.aio.HealthServicer()
        self._guards = AsyncExitStack()
        self.port = 0
        """The port in use, once entered."""

    async def __aenter__(self) -> Self:
        add_QueueServiceServicer_to_server(QueueServicer(self._broker), self._server)
        add_AdminServiceServicer_to_server(AdminServicer(self._broker), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable(self._server, (*SERVICES, health.SERVICE_NAME))
        try:
            self.port = (
                self._server.add_insecure_port(self._listen)
                if self._tls is None
                else self._server.add_secure_port(self._listen, self._tls)
            )
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._listen}: is the address right, and the port free?") from error
        await self._announce(serving=False)
        await self._server.start()
        following = asyncio.create_task(self._follow_readiness(), name="jobwire health")
        self._guards.push_async_callback(_end, following)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(grace=0)

    def open(self) -> None:
        """Lets calls through to the broker, which has been entered now."""
        self._opened = True

    async def stop(self, grace: float) -> None:
        """Refuses new calls, and ends those under way after `grace` seconds at the latest. Stopping twice is fine.

        gRPC takes one call of each method at a time. Those that wait for their turn when it stops it drops, with a bare
        CANCELLED, and there may be as many as there are clients. So it is stopped in a moment in which none comes; if
        there is none, what comes is refused for a while, in words that tell to come again later.
        """
        end = asyncio.get_running_loop().time() + grace
        await self._health.enter_graceful_shutdown()
        await self._guards.aclose()
        if not await self._quiet(min(_SERVING_SECONDS, grace / 2)):
            self._refusing = True
            await self._quiet(min(_REFUSING_SECONDS, grace / 2))
        await self._server.stop(max(0.0, end - asyncio.get_running_loop().time()))

    async def _quiet(self, within: float) -> bool:
        """Returns after a moment without calls; whether there was one `within` seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        seen = -1
        while loop.time() < end:
            if seen == self._boundary.arrived:
                return True
            seen = self._boundary.arrived
            await asyncio.sleep(_QUIET_SECONDS)
            for _ in range(_QUIET_TURNS):
                await asyncio.sleep(0)
        return False

    def _refusal(self) -> JobwireError | None:
        if self._refusing:
            return Draining()
        return None if self._opened else DatabaseUnavailable()

    async def _follow_readiness(self) -> None:
        async for ready in self._broker.ready_changes():
            await self._announce(serving=ready)

    async def _announce(self, *, serving: bool) -> None:
        answer = health_pb2.HealthCheckResponse
        for service in ("", *SERVICES):
            await self._health.set(service, answer.SERVING if serving else answer.NOT_SERVING)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
