"""The channel to Jobwire: its options, its stubs, and calls that are repeated where that helps.

A channel belongs to the event loop in which it is first used.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from jobwire.credentials import Token, call_metadata
from jobwire.errors import error_from_rpc
from jobwire.retrying import Attempts
from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub

if TYPE_CHECKING:
    # At run time there is one class of stubs for both kinds of channel.
    from jobwire.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from jobwire.v1.queue_service_pb2_grpc import QueueServiceAsyncStub

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


def channel_options(balancing: str = "round_robin") -> Sequence[tuple[str, int | str]]:
    """Options for a channel; a worker takes `pick_first`, so that its Acks share its stream's connection."""
    return (
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # gRPC's core ignores the timeout above unless this one is set too.
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Otherwise an idle connection stops pinging after two pings.
        ("grpc.http2.max_pings_without_data", 0),
        # A restarted server is found within seconds; gRPC's own default grows to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 2_000),
        ("grpc.max_reconnect_backoff_ms", 3_000),
        # A name is looked up again when a connection ends, at most this often. With gRPC's own 30 s a client would know
        # no living replica at the end of a rolling update that is quicker than that.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        # A page of ListJobs is the largest answer; requests stay below 4 MiB by the contract.
        ("grpc.max_receive_message_length", 64 * 1024 * 1024),
        ("grpc.max_send_message_length", 4 * 1024 * 1024),
        ("grpc.service_config", json.dumps({"loadBalancingConfig": [{balancing: {}}]})),
    )


class Connection:
    """One channel and its stubs."""

    def __init__(
        self,
        target: str,
        *,
        tls: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        balancing: str = "round_robin",
        actor: str | None = None,
    ) -> None:
        self.target = target
        self.metadata = call_metadata(token, actor)
        """Makes the metadata that every call carries; raises Unauthenticated."""
        options = channel_options(balancing)
        self._channel = (
            grpc.aio.insecure_channel(target, options=options)
            if tls is None
            else grpc.aio.secure_channel(target, tls, options=options)
        )
        self.queue: QueueServiceAsyncStub = QueueServiceStub(self._channel)
        self.admin: AdminServiceAsyncStub = AdminServiceStub(self._channel)

    async def call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, timeout: float
    ) -> Response:
        """Make a call, repeated with growing pauses within `timeout` seconds; raises JobwireError."""
        attempts = Attempts(timeout)
        while True:
            try:
                return await method(request, timeout=attempts.timeout(), metadata=self.metadata())
            except grpc.aio.AioRpcError as failure:
                error = error_from_rpc(failure, self.target)
            await asyncio.sleep(attempts.pause_after(error))

    async def attempt(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, timeout: float
    ) -> Response:
        """Make a call once; raises JobwireError."""
        try:
            return await method(request, timeout=timeout, metadata=self.metadata())
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure, self.target) from failure

    async def close(self) -> None:
        """Close the channel; what is under way is cancelled."""
        await self._channel.close()
