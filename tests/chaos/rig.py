"""The stage of a run: a PostgreSQL, servers, those who use them, and a proxy on every link between them.

Each is a process of its own under a name (`server-1`, `worker-2`); every link goes through a proxy in this process:
`worker-2` has one to each server, `server-1 to postgres` is its server's to the database. Whatever the rig starts ends
with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc.aio
import psycopg
from psycopg.rows import namedtuple_row

from jobwire.v1.admin_service_pb2 import CreateQueueRequest
from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire_server.embedded import EmbeddedPostgres
from tests.chaos import audit, gated, history
from tests.chaos.history import EndState, Record
from tests.chaos.proxy import Proxy

_START_SECONDS = 60.0
_STOP_SECONDS = 60.0


@dataclass(frozen=True)
class Graces:
    """How patient everybody is, in seconds."""

    owner: float = 60.0
    drain: float = 300.0
    cancel: float = 30.0
    renew: float = 5.0
    poll: float = 1.0
    resume: float = 15.0
    heartbeat: float = 5.0


class Member:
    """A process with a name, its output in a file, and the proxies of its links."""

    def __init__(self, name: str, command: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.links: list[Proxy] = []
        self._command = list(command)
        self._env = env
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)

    async def ended(self, within: float) -> int:
        """Waits for its end and returns the exit code; one that does not end is killed, and -9 returned."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                return await self._process.wait()
        self.send(signal.SIGKILL)
        return await self._process.wait()

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> int:
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        return await self.ended(_STOP_SECONDS) if self._process is not None else 0


class Server(Member):
    """A replica, on the same port over all its restarts."""

    port = 0

    async def start(self) -> None:
        seen = self.log.stat().st_size if self.log.exists() else 0
        await super().start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._serves(seen):
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not serve; its log is {self.log}")
            await asyncio.sleep(0.05)

    def _serves(self, seen: int) -> bool:
        with self.log.open("rb") as log:
            log.seek(seen)
            return b'"event":"serving"' in log.read().replace(b'": "', b'":"')


@dataclass
class Rig:
    """An async context manager; inside it all members run."""

    folder: Path
    servers: int = 2
    workers: int = 3
    graces: Graces = field(default_factory=Graces)
    concurrency: int = 20
    queues: tuple[str, ...] = gated.QUEUES
    rate: float = 100.0
    """Of the load, in jobs a second: limits are made to fit it."""
    seed: int = 0

    def __post_init__(self) -> None:
        self.record_folder = self.folder / "history"
        self.members: dict[str, Member] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        self.record_folder.mkdir()
        self.record = Record(self.record_folder, "rig")
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        settings = {
            "max_connections": "60",
            "deadlock_timeout": "200ms",
            "max_wal_size": "4GB",
        }
        self.postgres = EmbeddedPostgres(self.folder / "postgres", settings=settings)
        await asyncio.to_thread(self.postgres.start)
        self._stack.callback(self.postgres.stop)
        for number in range(1, self.servers + 1):
            await self._add_server(f"server-{number}")
        # From before the first claim on.
        with self.database() as connection:
            audit.keep_claims(connection)
        await self._make_queues()
        for number in range(1, self.workers + 1):
            terms = {
                "queues": self.queues,
                "concurrency": self.concurrency,
                "heartbeat": self.graces.heartbeat,
                "grace": self.graces.resume,
            }
            block = 4 * self.graces.heartbeat + 1
            await self.add(
                "worker", f"worker-{number}", rotate=number, **terms, block_seconds=block, shared=number % 2 == 0
            )
        await self.add(
            "rogue",
            "rogue-1",
            queues=self.queues,
            heartbeat=self.graces.heartbeat,
            grace=self.graces.resume,
            seed=self.seed,
        )
        await self.add("operator", "operator-1", queues=self.queues, seed=self.seed)

    async def _make_queues(self) -> None:
        port = self._servers()[0].port
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = AdminServiceStub(channel)
            for queue in gated.messages(self.rate):
                await stub.CreateQueue(CreateQueueRequest(queue=queue), wait_for_ready=True, timeout=_START_SECONDS)

    def _servers(self) -> list[Server]:
        return [member for member in self.members.values() if isinstance(member, Server)]

    async def _add_server(self, name: str) -> None:
        link = await self._stack.enter_async_context(Proxy("127.0.0.1", self.postgres.port))
        port = _free_port()
        dsn = self.postgres.dsn.replace(f":{self.postgres.port}/", f":{link.port}/")
        graces = self.graces
        env = _environment() | {
            "JOBWIRE_DATABASE_URL": dsn,
            "JOBWIRE_LISTEN": f"127.0.0.1:{port}",
            "JOBWIRE_HTTP_LISTEN": "127.0.0.1:0",
            "JOBWIRE_LOG_FORMAT": "json",
            "JOBWIRE_OWNER_GRACE": str(graces.owner),
            "JOBWIRE_DRAIN_GRACE": str(graces.drain),
            "JOBWIRE_CANCEL_GRACE": str(graces.cancel),
            "JOBWIRE_RENEW_INTERVAL": str(graces.renew),
            "JOBWIRE_POLL_INTERVAL": str(graces.poll),
        }
        server = Server(name, [sys.executable, "-m", "jobwire_server", "serve"], env, self.folder / f"{name}.log")
        server.port = port
        server.links.append(link)
        self.members[name] = server
        await server.start()
        self._stack.push_async_callback(server.stop)

    async def add(self, part: str, name: str, *, rotate: int = 0, **settings: Any) -> Member:
        """Starts one who uses the service, with a proxy to each server; `rotate` says which comes first."""
        servers = self._servers()
        turn = rotate % len(servers)
        links = [
            await self._stack.enter_async_context(Proxy("127.0.0.1", server.port))
            for server in servers[turn:] + servers[:turn]
        ]
        target = "ipv4:" + ",".join(link.address for link in links)
        command = [
            sys.executable,
            "-m",
            "tests.chaos.actors",
            part,
            name,
            str(self.record_folder),
            target,
            json.dumps(settings),
        ]
        member = Member(name, command, _environment(), self.folder / f"{name}.log")
        member.links = links
        self.members[name] = member
        await member.start()
        self._stack.push_async_callback(member.stop)
        return member

    def some(self, part: str) -> list[Member]:
        """The members of one part, such as `worker`."""
        return [member for name, member in self.members.items() if name.startswith(part + "-")]

    def note(self, what: str, victim: str, begun: float) -> None:
        """Writes down that a fault has been done, from `begun` until now."""
        self.record.note(history.Fault, 0, what, victim, time.monotonic(), t=begun)

    def database(self) -> psycopg.Connection[Any]:
        """A connection of one's own, not through a proxy."""
        return psycopg.connect(self.postgres.dsn, autocommit=True, row_factory=namedtuple_row)

    def end_state(self) -> EndState:
        """What the database says now."""
        with self.database() as connection:
            return audit.end_state(connection)

    def live_jobs(self) -> int:
        """How many jobs have no outcome yet that will have one."""
        with self.database() as connection:
            return audit.unsettled(connection)


def _free_port() -> int:
    """A port below those that outgoing connections get, so that none of them takes it while a server is away."""
    with contextlib.suppress(StopIteration):
        return next(port for port in random.sample(range(28_000, 32_000), 500) if _is_free(port))
    raise RuntimeError("no free port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")}
