"""Contestants, and the stage on which one of them is measured once.

A stage is the same for all: a new database in the one PostgreSQL, the contestant's server if it has one, its drivers as
processes of their own, and a checkpoint right before the clock runs, so that nobody pays for what another one wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self
from urllib.parse import quote

import psycopg

from bench.speed.meter import Ledger, Meter, postmaster

Settings = Literal["best", "defaults"]
Kind = Literal["jobwire", "queue", "messages", "ceiling", "echo"]
PAYLOAD_BYTES = 200
JOBWIRE, NODE = "Jobwire", "Jobwire (Node)"
"""Those whose ratios to everybody else are told."""

_ROOT = Path(__file__).parents[2]

_ANSWER_SECONDS = 240.0
_STOP_SECONDS = 30.0
_TAIL_LINES = 12
_LINE_BYTES = 1 << 22


class ContestError(RuntimeError):
    """A contestant did not do what it was told. The message has the end of its log."""


@dataclass(frozen=True)
class Service:
    """A server that stands between drivers and database: where it listens, and its process."""

    address: str
    pid: int


@dataclass(frozen=True)
class Contestant:
    """Something to measure.

    `command` starts its driver. `service` starts its server on a database and gives its address, for those that have
    one. `kind` says where it ranks: job queues compete, `messages` are what bare messages cost, ceiling and echo are
    what nobody can pass. `remaining` is the SQL that counts unfinished jobs. `bulk_tasks` is how many callers publish
    in batches at best. `idle_pace` is for latencies at its defaults, if what others do would be a backlog to it: how
    many jobs, and how many ms apart. `absent` says why it cannot take part, if so; else `version` may say what it is.
    """

    name: str
    kind: Kind
    command: Sequence[str] = ()
    service: Callable[[str], AbstractAsyncContextManager[Service]] | None = None
    remaining: str | None = None
    bulk_tasks: int = 4
    idle_pace: tuple[int, float] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    absent: str = ""


@dataclass(frozen=True)
class Cost:
    """What a measured run used: CPU seconds and peak MiB by who used them, WAL bytes, and the machine's other CPU."""

    seconds: float
    cpu: Mapping[str, float]
    memory: Mapping[str, float]
    wal_bytes: int
    elsewhere: float


class Played(Protocol):
    """What drivers are told of a scenario."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def settings(self) -> Settings:
        """Which settings it asks for."""


class DriverProcess:
    """A driver that runs, and is told what to do."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self._name = name
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def tell(self, do: str, **what: object) -> None:
        """Gives it a command, and does not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            # Should it have ended, that it says nothing tells more.
            await self._process.stdin.drain()

    async def hear(self, event: str) -> Mapping[str, Any]:
        """Its next line, which must be this event. Raises ContestError."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise self._failure(f"did not say {event!r} within {_ANSWER_SECONDS:g} s") from None
        try:
            said = json.loads(line)
        except ValueError:
            raise self._failure(f"was to say {event!r} and said {line[:200]!r}") from None
        if not isinstance(said, dict) or said.get("event") != event:
            raise self._failure(f"was to say {event!r} and said {line[:200]!r}")
        return said

    async def ask(self, do: str, **what: object) -> Mapping[str, Any]:
        """Gives it a command, and returns how it went."""
        await self.tell(do, **what)
        return await self.hear("done")

    async def __aenter__(self) -> Self:
        """It is connected."""
        await self.hear("ready")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stops it in order, or at once after an error."""
        try:
            if kind is None:
                await self._stop()
        finally:
            with contextlib.suppress(ProcessLookupError):
                # With all that it has begun.
                os.killpg(self.pid, signal.SIGKILL)
            await self._process.wait()

    async def _stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            raise self._failure(f"did not end within {_STOP_SECONDS:g} s of the end of its input") from None
        if code:
            raise self._failure(f"ended with exit code {code}")

    def _failure(self, what: str) -> ContestError:
        with self._log.open(errors="replace") as lines:
            tail = "".join(f"  {line}" for line in deque(lines, _TAIL_LINES))
        return ContestError(f"the driver of {self._name} {what}; its log ends with\n{tail or '  (nothing)'}")


class Stage:
    """One contestant with a new database."""

    def __init__(self, contestant: Contestant, played: Played, dsn: str, service: Service | None, folder: Path) -> None:
        self.contestant = contestant
        self._played = played
        self._dsn = dsn
        self._service = service
        self._folder = folder
        self._drivers = AsyncExitStack()
        self.cost: Cost | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._drivers.__aexit__(kind, error, trace)

    async def driver(self) -> DriverProcess:
        """Starts one more driver and waits until it is connected; it is stopped with the stage."""
        log = self._folder / f"driver-{secrets.token_hex(3)}.log"
        environment = {
            "BENCH_TARGET": self._service.address if self._service else self._dsn,
            "BENCH_SETTINGS": self._played.settings,
            "BENCH_SCENARIO": self._played.name,
            "BENCH_PAYLOAD_BYTES": str(PAYLOAD_BYTES),
            **self.contestant.environment,
        }
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *self.contestant.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=_LINE_BYTES,
                cwd=_ROOT,
                env=os.environ | environment,
                # A Ctrl-C on the terminal is ours to handle, in order.
                start_new_session=True,
            )
        return await self._drivers.enter_async_context(DriverProcess(self.contestant.name, process, log))

    @contextmanager
    def measured(self, **roles: Sequence[DriverProcess]) -> Iterator[None]:
        """Notes in `cost` what the block uses, by the roles of the drivers."""
        self._execute("CHECKPOINT")
        processes = {name: [driver.pid for driver in drivers] for name, drivers in roles.items()}
        if self._service:
            processes["server"] = [self._service.pid]
        processes["PostgreSQL"] = [postmaster(self._dsn)]
        meter, ledger = Meter(processes), Ledger(self._dsn)
        with ledger, meter:
            yield
        self.cost = Cost(meter.seconds, meter.cpu, meter.memory, ledger.wal_bytes, meter.elsewhere)

    def pace(self, jobs: int, every_ms: float) -> tuple[int, float]:
        """How many jobs, and how far apart in ms, show the idle latency: what is given, if the contestant can."""
        if self._played.settings == "best" or self.contestant.idle_pace is None:
            return jobs, every_ms
        most, pause = self.contestant.idle_pace
        return min(jobs, most), max(every_ms, pause)

    def analyze(self) -> None:
        """Has PostgreSQL learn about what is stored, as it would have long since in real life."""
        self._execute("VACUUM (ANALYZE)")

    def check_nothing_is_left(self) -> None:
        """Raises ContestError if there are unfinished jobs."""
        if self.contestant.remaining and (left := self._execute(self.contestant.remaining)[0][0]):
            raise ContestError(f"{self.contestant.name} said that all is done, and {left} jobs are not")

    def _execute(self, statement: str) -> Sequence[Any]:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def stage(contestant: Contestant, played: Played, dsn: str) -> AsyncIterator[Stage]:
    """Builds a stage in the PostgreSQL of `dsn` for what is played, and clears it away."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobwire-speed-")))
        own = stack.enter_context(_database(dsn))
        service = await stack.enter_async_context(contestant.service(own)) if contestant.service else None
        yield await stack.enter_async_context(Stage(contestant, played, own, service, folder))


@contextmanager
def _database(dsn: str) -> Iterator[str]:
    """A new database beside that of `dsn`, as a URL, which is what all drivers understand; it is dropped."""
    name = f"bench_{secrets.token_hex(4)}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            place, who = connection.info, f"{quote(connection.info.user)}:{quote(connection.info.password)}"
            yield f"postgresql://{who}@{quote(place.host, safe='')}:{place.port}/{name}"
        finally:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def python_driver(module: str) -> Sequence[str]:
    """The command of a driver of this tree."""
    return [sys.executable, "-m", module]
