"""The channel to Jobwire: its options, its stubs, and calls that are repeated where that helps.

A channel belongs to the event loop in which it is first used.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from jobwire.credentials import Metadata, Token, call_metadata
from jobwire.errors import InvalidArgument, JobwireError, Unavailable, error_from_rpc
from jobwire.retrying import Attempts
from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from jobwire.waiting import asked_to_end

if TYPE_CHECKING:
    # At run time there is one class of stubs for both kinds of channel.
    from jobwire.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from jobwire.v1.queue_service_pb2_grpc import QueueServiceAsyncStub

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
_Request_contra = TypeVar("_Request_contra", bound=Message, contravariant=True)
_Response_co = TypeVar("_Response_co", bound=Message, covariant=True)


class Method(Protocol[_Request_contra, _Response_co]):
    """A unary call of the contract, as a stub has it."""

    def __call__(
        self, request: _Request_contra, /, *, timeout: float, metadata: Metadata | None
    ) -> Awaitable[_Response_co]:
        """Make the call."""
        ...


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
        # Otherwise channels that are made alike share what they have connected, also what a worker has left as dead.
        ("grpc.use_local_subchannel_pool", int(balancing == "pick_first")),
    )


def _checked(target: str) -> str:
    """Refuse what gRPC would refuse in words of its own, or look for until the time is over."""
    if not target or target.lower().startswith(("http:", "https:")):
        why = f"target: host and port, such as 127.0.0.1:50051 or dns:///jobwire:50051, not {target!r}"
        raise InvalidArgument(why, reason="INVALID_ARGUMENT")
    return target


class Connection:
    """One channel and its stubs, until it is left for another one. Raises InvalidArgument for what is no address."""

    def __init__(
        self,
        target: str,
        *,
        tls: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        balancing: str = "round_robin",
        actor: str | None = None,
    ) -> None:
        self.target = _checked(target)
        self.metadata = call_metadata(token, actor)
        """Makes the metadata that every call carries; raises Unauthenticated."""
        self._tls = tls
        self._options = channel_options(balancing)
        self.line = 0
        """The number of the present channel."""
        self._open()

    def _open(self) -> None:
        self._channel = (
            grpc.aio.insecure_channel(self.target, options=self._options)
            if self._tls is None
            else grpc.aio.secure_channel(self.target, self._tls, options=self._options)
        )
        self.queue: QueueServiceAsyncStub = QueueServiceStub(self._channel)
        self.admin: AdminServiceAsyncStub = AdminServiceStub(self._channel)

    async def leave(self, line: int) -> None:
        """Go on over a new channel, since the one of this number may be dead without anybody having said so.

        What is under way over the old one ends: calls as unavailable, streams as cancelled. If it was left before, by
        somebody else who shares it, nothing happens.
        """
        if line == self.line:
            left = self._channel
            self.line += 1
            self._open()
            await left.close()

    async def call(self, method: Method[Request, Response], request: Request, timeout: float) -> Response:
        """Make a call, repeated with growing pauses within `timeout` seconds; raises JobwireError."""
        attempts = Attempts(timeout)
        while True:
            try:
                return await self.attempt(method, request, attempts.timeout())
            except JobwireError as failure:
                error = failure
            await asyncio.sleep(attempts.pause_after(error))

    async def attempt(self, method: Method[Request, Response], request: Request, timeout: float) -> Response:
        """Make a call once; raises JobwireError."""
        line = self.line
        try:
            return await method(request, timeout=timeout, metadata=self.metadata())
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure, self.target) from failure
        except asyncio.CancelledError:
            if asked_to_end() or line == self.line:
                raise
            raise Unavailable(
                f"the connection to Jobwire at {self.target} was left while a call was under way"
            ) from None

    async def close(self) -> None:
        """Close the channel; what is under way is cancelled."""
        await self._channel.close()
