"""Servers and workers as processes of their own, on the test's schema."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Postgres

WORKER = Path(__file__).parent / "worker_program.py"
PATIENCE = 60.0


def free_port() -> int:
    """A port below those that outgoing connections get, so that none of them takes it while a server is away."""
    # Each of the processes that share the tests has a range of its own.
    first = 20_000 + 3_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4)
    for port in range(first + os.getpid() % 1_500, first + 3_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in _given:
                _given.add(port)
                return port
    raise RuntimeError("no free port")


_given: set[int] = set()


@dataclass
class Process:
    """A process with its output in a file."""

    command: list[str]
    env: dict[str, str]
    output: Path
    running: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        with self.output.open("ab") as file:
            self.running = subprocess.Popen(self.command, env=self.env, stdout=file, stderr=subprocess.STDOUT)

    def send(self, number: signal.Signals) -> None:
        self.running.send_signal(number)

    def kill(self) -> None:
        self.running.kill()
        self.running.wait()

    def ends(self, within: float = PATIENCE) -> int:
        """Waits for the end and returns the exit code."""
        return self.running.wait(within)

    def text(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def stop(self) -> None:
        if self.running.poll() is None:
            self.running.terminate()
            try:
                self.running.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass
class ServerProcess(Process):
    """A replica, always on the same addresses."""

    port: int = 0
    http_port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def events(self) -> list[dict[str, Any]]:
        """Its log lines."""
        return [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]

    def start(self, *, wait: bool = True) -> None:
        seen = len(self.text())
        super().start()
        if wait:
            self.wait_for("serving", seen)

    def wait_for(self, event: str, seen: int = 0) -> None:
        deadline = time.monotonic() + PATIENCE
        while f'"event": "{event}"' not in (late := self.text()[seen:]) and f'"event":"{event}"' not in late:
            assert self.running.poll() is None, f"the server ended:\n{self.text()}"
            assert time.monotonic() < deadline, f"no {event!r}:\n{self.text()}"
            time.sleep(0.05)


@dataclass
class WorkerProcess(Process):
    """The worker program; `starts` and `ends_of` read what its handler wrote down."""

    record: Path = Path()

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.record.read_text().splitlines()] if self.record.exists() else []

    def starts(self, job_id: str | None = None) -> list[str]:
        return [words[1] for words in self.lines() if words[0] == "start" and job_id in (None, words[1])]

    def dones(self) -> list[str]:
        return [words[1] for words in self.lines() if words[0] == "done"]


def replica(dsn: str, schema: str, log: Path, **settings: object) -> ServerProcess:
    """A server on two free ports, not started yet; the settings are those of the environment, in lower case."""
    port, http_port = free_port(), free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")} | {
        "JOBWIRE_DATABASE_URL": dsn,
        "JOBWIRE_SCHEMA": schema,
        "JOBWIRE_LISTEN": f"127.0.0.1:{port}",
        "JOBWIRE_HTTP_LISTEN": f"127.0.0.1:{http_port}",
        "JOBWIRE_LOG_FORMAT": "json",
        **{f"JOBWIRE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    return ServerProcess([sys.executable, "-m", "jobwire_server", "serve"], env, log, port=port, http_port=http_port)


@pytest.fixture
def server(postgres: Postgres, schema: str, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts replicas on the test's schema; they are stopped after the test."""
    with ExitStack() as stack:
        count = 0

        def start(*, wait: bool = True, dsn: str = postgres.dsn, **settings: object) -> ServerProcess:
            nonlocal count
            count += 1
            process = replica(dsn, schema, tmp_path / f"server-{count}.log", **settings)
            process.start(wait=wait)
            stack.callback(process.stop)
            return process

        yield start


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts worker programs; they are stopped after the test."""
    with ExitStack() as stack:
        count = 0

        def start(target: str, *, queue: str = "work", seconds: float = 0.0, concurrency: int = 1) -> WorkerProcess:
            nonlocal count
            count += 1
            record = tmp_path / "record.txt"
            command = [sys.executable, str(WORKER), target, queue, str(seconds), str(concurrency), str(record)]
            process = WorkerProcess(command, dict(os.environ), tmp_path / f"worker-{count}.log", record=record)
            process.start()
            stack.callback(process.stop)
            return process

        yield start


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Returns when the condition holds; fails if it does not come to hold."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)
