"""The echo server: what gRPC itself costs, in the same stack, with the bytes of a Publish call and nothing behind it.

`python -m bench.speed.echo serve` listens and says where; without `serve` it is a driver of the benchmark, and
`BENCH_TARGET` is that address. A latency here is a unary call that comes back on a stream, as a job's does.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio

from bench.speed.drivers.protocol import Worked, pace, run
from jobwire.v1.queue_service_pb2 import JobSpec, PublishRequest

_SERVICE = "bench.Echo"
_CALL, _STREAM = f"/{_SERVICE}/Call", f"/{_SERVICE}/Stream"


class EchoServer:
    """Answers each call with its bytes, and sends them to whoever listens."""

    def __init__(self) -> None:
        self._listeners: list[asyncio.Queue[bytes]] = []

    async def call(self, message: bytes, _: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """The unary echo."""
        for listener in self._listeners:
            listener.put_nowait(message)
        return message

    async def stream(self, message: bytes, _: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        """What others call with from now on; the first message says that it has begun."""
        mine: asyncio.Queue[bytes] = asyncio.Queue()
        self._listeners.append(mine)
        try:
            yield message
            while True:
                yield await mine.get()
        finally:
            self._listeners.remove(mine)


async def serve() -> None:
    """Serves until SIGTERM."""
    echo, server = EchoServer(), grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Call": grpc.unary_unary_rpc_method_handler(echo.call),
        "Stream": grpc.unary_stream_rpc_method_handler(echo.stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print(json.dumps({"event": "serving", "grpc": f"127.0.0.1:{port}"}), flush=True)
    await stopped.wait()
    await server.stop(0)


class EchoDriver:
    """Calls, and listens."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CALL)
        self._stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(_STREAM)

    async def setup(self) -> None:
        """There is nothing to make."""

    async def store(self, payloads: Sequence[Mapping[str, Any]]) -> None:
        """A call with the bytes of the Publish call that would store these."""
        jobs = [JobSpec(data=json.dumps(each)) for each in payloads]
        await self._call(PublishRequest(queue="bench", jobs=jobs).SerializeToString())

    async def work(self, jobs: int, working: Callable[[], None]) -> Worked:
        """Not measured: an echo keeps nothing."""
        raise NotImplementedError

    async def latencies(self, jobs: int, every: float) -> list[int]:
        """From the call to the message on the stream."""
        found: list[int] = []
        stream = self._stream(b"begin")
        await stream.read()

        async def listen() -> None:
            while len(found) < jobs:
                message = await stream.read()
                assert isinstance(message, bytes), "the echo server ended the stream"
                found.append(time.time_ns() - json.loads(PublishRequest.FromString(message).jobs[0].data)["began"])

        listening = asyncio.create_task(listen())
        await pace(jobs, every, lambda: self.store([{"began": time.time_ns(), "text": "x" * 150}]))
        await listening
        stream.cancel()
        return found


@asynccontextmanager
async def connected(target: str) -> AsyncIterator[EchoDriver]:
    """Speaks to the server at `target`."""
    async with grpc.aio.insecure_channel(target) as channel:
        yield EchoDriver(channel)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        with suppress(KeyboardInterrupt):
            asyncio.run(serve())
    else:
        run(connected)
