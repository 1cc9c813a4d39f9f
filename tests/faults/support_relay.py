"""A relay that ends HTTP/2 itself, as Envoy and nginx do: each side sees its connection to the relay and no more.

So a worker behind it may be dead, and the server's pings are answered all the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio


class _Relaying(grpc.GenericRpcHandler):
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        method = details.method
        if method.endswith("/Subscribe"):

            async def stream(request: bytes, context: Any) -> None:
                call = self._channel.unary_stream(method)(request)
                try:
                    async for message in call:
                        await context.write(message)
                except grpc.aio.AioRpcError as error:
                    await _pass_on(error, context)
                finally:
                    call.cancel()

            return grpc.unary_stream_rpc_method_handler(stream)

        async def unary(request: bytes, context: Any) -> Any:
            try:
                return await self._channel.unary_unary(method)(request, timeout=context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await _pass_on(error, context)

        return grpc.unary_unary_rpc_method_handler(unary)


async def _pass_on(error: grpc.aio.AioRpcError, context: Any) -> None:
    await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))


@asynccontextmanager
async def relay(upstream: str) -> AsyncIterator[str]:
    """A relay to the address of a server; its own address."""
    async with grpc.aio.insecure_channel(upstream, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Relaying(channel),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)
