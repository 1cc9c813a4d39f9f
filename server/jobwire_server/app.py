"""Wires the parts together and leads them through their life.

Starting: HTTP listens first, then gRPC, which answers UNAVAILABLE and NOT_SERVING until the broker has its database; a
database that is away delays the start and never ends the process.
Stopping: readiness off, streams sent away, calls served for a little longer, then refused, then all is closed in the
opposite order of the start. Stopping twice is fine.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

import structlog

from jobwire_server import __version__
from jobwire_server.api import certificate
from jobwire_server.api.bearers import Bearers
from jobwire_server.api.server import GrpcServer
from jobwire_server.broker.broker import Broker, SchemaMismatch
from jobwire_server.broker.terms import BrokerTerms
from jobwire_server.domain.errors import JobwireError
from jobwire_server.settings import Settings
from jobwire_server.store.database import Database
from jobwire_server.web.app import build_app
from jobwire_server.web.metrics import CallMetrics, build_registry
from jobwire_server.web.server import HttpServer

__all__ = ["SchemaMismatch", "Server", "running", "serve"]

_LAST_CALLS_SECONDS = 5.0
"""How long calls under way may take to finish once new ones are refused; a health watch never does by itself."""

log = structlog.get_logger(__name__)


class Server:
    """One replica; an async context manager that listens inside it.

    Raises OSError if an address cannot be had, or a file that the settings name cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        cert, key = settings.tls_cert, settings.tls_key
        tls = None if cert is None or key is None else certificate.credentials(cert, key)
        bearers = Bearers(settings.tokens_file) if settings.tokens_file is not None else None
        self._database = Database(
            settings.database_url.get_secret_value(), schema=settings.schema_name, pool_size=settings.pool_size
        )
        self._broker = Broker(self._database, _terms(settings))
        registry = build_registry(self._broker.stats, self._database.pool_stats)
        self._grpc = GrpcServer(self._broker, CallMetrics(registry), settings.listen, tls=tls, bearers=bearers)
        host, port = _split(settings.http_listen)
        self._http = HttpServer(build_app(self._not_ready, registry), host.strip("[]"), port)
        self._stack = AsyncExitStack()
        self._connections = AsyncExitStack()
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where a client on this machine finds gRPC, as `host:port`."""
        return f"{_local(_split(self._settings.listen)[0])}:{self._grpc.port}"

    @property
    def http_address(self) -> str:
        """Where one on this machine finds HTTP, as `host:port`."""
        return f"{_local(_split(self._settings.http_listen)[0])}:{self._http.port}"

    async def __aenter__(self) -> Self:
        try:
            await self._stack.enter_async_context(self._http)
            await self._stack.enter_async_context(self._connections)
            await self._connections.enter_async_context(self._database)
            await self._stack.enter_async_context(self._grpc)
        except BaseException:
            await self._stack.aclose()
            raise
        self._starting = asyncio.create_task(self._start(), name="jobwire start")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            await self._stack.aclose()

    async def started(self) -> None:
        """Returns when calls are served, which may take as long as the database is away. Raises SchemaMismatch."""
        assert self._starting is not None, "enter the server first"
        await asyncio.shield(self._starting)

    async def stop(self, hurry: asyncio.Event | None = None) -> None:
        """Stops in order, within `drain_timeout`; at once as soon as `hurry` is set. Stopping twice is fine."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="jobwire stop")
        waiting = [self._stopping]
        if hurry is not None:
            waiting.append(asyncio.create_task(_set(hurry)))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(*waiting)
        if not self._stopping.cancelled():
            self._stopping.result()

    async def _start(self) -> None:
        await self._stack.enter_async_context(self._broker)
        self._grpc.open()

    async def _stop(self) -> None:
        assert self._starting is not None, "enter the server first"
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.drain_timeout
        await _end(self._starting)
        if not self._starting.cancelled() and self._starting.exception() is None:
            try:
                async with asyncio.timeout_at(end):
                    await self._drain()
            except TimeoutError:
                log.warning("the drain took too long", drain_timeout=self._settings.drain_timeout)
            except JobwireError as error:
                log.warning("the drain was cut short", error=error.message)
            except Exception:
                # Whatever it was, the calls under way are still to be finished and the port given back.
                log.exception("the drain failed")
        if self._broker.database_away:
            # Calls that wait for it are answered now that they may be repeated, instead of being cut off below.
            await self._connections.aclose()
        await self._grpc.stop(min(_LAST_CALLS_SECONDS, max(0.0, end - loop.time())))

    async def _drain(self) -> None:
        had_streams = self._broker.stats().streams > 0
        await self._broker.drain()
        if had_streams and not self._broker.database_away:
            await asyncio.sleep(self._settings.drain_linger)

    def _not_ready(self) -> str | None:
        if self._broker.ready:
            return None
        if self._stopping is not None:
            return "this replica is about to stop"
        if self._starting is None or not self._starting.done():
            return "waiting for the database"
        return "the database does not answer"


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Server]:
    """A server that serves; it is stopped in order at the end."""
    async with Server(settings) as server:
        await server.started()
        yield server


async def serve(settings: Settings, on_serving: Callable[[Server], None]) -> None:
    """Serves until SIGTERM or SIGINT, and stops in order; at once after a second signal.

    `on_serving` is told when calls are served. Raises OSError if an address cannot be had or a file cannot be used,
    SchemaMismatch if the database's schema is not one to serve.
    """
    asked, hurry = asyncio.Event(), asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        log.info("stopping at once" if asked.is_set() else "stopping", signal=number.name)
        (hurry if asked.is_set() else asked).set()

    with _signals(on_signal):
        log.info("starting", version=__version__, **_facts(settings))
        async with Server(settings) as server:
            starting, asking = asyncio.create_task(server.started()), asyncio.create_task(_set(asked))
            try:
                await asyncio.wait([starting, asking], return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    starting.result()
                    # What is here now stays: the collector need not look through it again, which would hold up calls.
                    gc.collect()
                    gc.freeze()
                    log.info("serving", grpc=server.address, http=server.http_address)
                    on_serving(server)
                    await asked.wait()
            finally:
                await _end(starting, asking)
            await server.stop(hurry)
        log.info("stopped")


def _terms(settings: Settings) -> BrokerTerms:
    return BrokerTerms(
        create_queues=settings.create_queues,
        migrate=settings.migrate,
        owner_grace_ms=round(settings.owner_grace * 1_000),
        drain_grace_ms=round(settings.drain_grace * 1_000),
        cancel_grace_ms=round(settings.cancel_grace * 1_000),
        renew_interval_ms=round(settings.renew_interval * 1_000),
        poll_interval_ms=round(settings.poll_interval * 1_000),
        max_sessions=settings.max_sessions,
        max_publishing_bytes=settings.max_publishing_mb * 1024 * 1024,
        # The other half stays for claims, Acks, looks and the clock, however many queues are published to.
        publishing_connections=max(1, settings.pool_size // 2),
    )


def _facts(settings: Settings) -> dict[str, object]:
    """The settings for the first log line, without secrets."""
    return settings.model_dump(exclude={"database_url"}) | {"database": settings.database}


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _local(host: str) -> str:
    """The address under which one reaches what listens on `host` from this machine."""
    return {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104  (compared, not bound)


@contextlib.contextmanager
def _signals(handle: Callable[[signal.Signals], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
