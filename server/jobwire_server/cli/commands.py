"""Runs a command for a job: what it is told, how it is stopped, and what its end means.

Each run is a process group of its own, and whatever ends the run ends all of the group. What holds then: the command
ended by itself, or it was told to (TERM) and had its grace, or the worker died and the guard did the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import IO, Any, Self

import structlog

from jobwire import FailForGood, Job, ReleaseJob
from jobwire.wire import to_json
from jobwire_server.cli import guard
from jobwire_server.cli.reports import OUTPUT_BYTES, Lines, Tail, output_of, parsed

log = structlog.get_logger(__name__)

FAIL_FOR_GOOD = os.EX_DATAERR
"""The exit code of a command that says: these data will never do (65)."""
GIVE_BACK = os.EX_TEMPFAIL
"""The exit code of a command that says: not now; another time, without using up a retry (75)."""

_TRACE_BYTES = 8 * 1024
_LINE_BYTES = 16 * 1024
_REPORT_BYTES = 256 * 1024
_LOOK_SECONDS = 0.05
_PIPE_SECONDS = 1.0
"""How long the pipes may stay open after the group has ended: what left the group may hold them for ever."""


class CommandFailed(Exception):
    """The command ended with an exit code that means failure, or by a signal. `trace` is what it said last."""

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace


class DataRefused(CommandFailed, FailForGood):
    """The command ended with the exit code that forbids another try."""


class Guard:
    """The process that ends the commands should this one die."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__], stdin=subprocess.PIPE, start_new_session=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._pipe.close()
        self._process.wait()

    @contextmanager
    def over(self, group: int) -> Iterator[None]:
        """Guards a process group while the block runs."""
        self._say(f"+{group}\n")
        try:
            yield
        finally:
            self._say(f"-{group}\n")

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _say(self, line: str) -> None:
        try:
            self._pipe.write(line.encode())
            self._pipe.flush()
        except BrokenPipeError:
            log.warning("the guard of the commands is gone: should this process be killed, they will run on")


class CommandHandler:
    """A handler that runs a command for each job.

    Args:
        command: the program and its arguments.
        environment: what all runs have in their environment.
        grace: how long a command that is told to stop may take until it is killed, in seconds.
        guard: told of each run.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], grace: float, guard_of_all: Guard
    ) -> None:
        self._command = command
        self._environment = environment
        self._grace = grace
        self._guard = guard_of_all

    async def __call__(self, job: Job) -> Any:
        """Run it. Returns the job's output; raises what its exit code means."""
        begun = time.monotonic()
        stdout, stderr = Tail(OUTPUT_BYTES), Tail(_TRACE_BYTES)
        log.info("command starts", job=job.id, queue=job.queue, attempt=job.attempt)
        code = await self._run(job, stdout, stderr)
        log.info("command ended", job=job.id, queue=job.queue, code=code, seconds=round(time.monotonic() - begun, 3))
        return _meaning(code, stdout, stderr)

    async def _run(self, job: Job, stdout: Tail, stderr: Tail) -> int:
        told = Lines(lambda line: log.info("command says", job=job.id, line=line), _LINE_BYTES)

        def hear(chunk: bytes) -> None:
            stderr.add(chunk)
            told.add(chunk)

        async with _Pipe(stdout.add) as out, _Pipe(hear) as err, _Pipe(_reports(job).add) as reports:
            with tempfile.TemporaryFile() as payload:
                payload.write(to_json(job.data).encode())
                payload.seek(0)
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=payload,
                    stdout=out.end,
                    stderr=err.end,
                    pass_fds=(reports.end,),
                    env={**self._environment, **facts(job), "JOBWIRE_PROGRESS": f"/dev/fd/{reports.end}"},
                    start_new_session=True,
                )
            with self._guard.over(process.pid):
                try:
                    code = await process.wait()
                except asyncio.CancelledError:
                    # Told to stop. A second time while it has its grace: no more patience.
                    _signal(process.pid, signal.SIGTERM)
                    async with _patience(self._grace):
                        await _empty(process.pid)
                    raise
                finally:
                    # The group, not the process: what it left behind would run without a lease.
                    _signal(process.pid, signal.SIGKILL)
        told.end()
        return code


def facts(job: Job) -> dict[str, str]:
    """What a command finds about its job in its environment."""
    headers = {
        "JOBWIRE_HEADER_" + re.sub(r"[^A-Z0-9]", "_", name.upper()): value for name, value in job.headers.items()
    }
    return {
        **headers,
        "JOBWIRE_HEADERS": json.dumps(dict(job.headers), ensure_ascii=False),
        "JOBWIRE_JOB_ID": job.id,
        "JOBWIRE_QUEUE": job.queue,
        "JOBWIRE_PRIORITY": str(job.priority),
        "JOBWIRE_ATTEMPT": str(job.attempt),
        "JOBWIRE_RETRY_COUNT": str(job.retry_count),
        "JOBWIRE_RETRY_LIMIT": str(job.retry_limit),
        "JOBWIRE_CREATED_AT": job.created_at.isoformat(),
        "JOBWIRE_EXPIRE_IN": f"{job.expire_in:g}",
        "JOBWIRE_CHECKPOINT": "" if job.checkpoint is None else to_json(job.checkpoint),
    }


def _meaning(code: int, stdout: Tail, stderr: Tail) -> Any:
    if code == 0:
        return output_of(stdout)
    if code == GIVE_BACK:
        raise ReleaseJob
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    said = stderr.text.strip()
    message = f"{how}: {said[said.rfind(chr(10)) + 1 :]}" if said else how
    raise (DataRefused if code == FAIL_FOR_GOOD else CommandFailed)(message, said)


def _reports(job: Job) -> Lines:
    warned = False

    def report(line: str) -> None:
        nonlocal warned
        try:
            parsed(line).pass_on(job)
        except ValueError as error:
            # Said once: a command that does not know the form says much in it.
            if not warned:
                log.warning("a line about the progress means nothing", job=job.id, line=line[:200], why=str(error))
            warned = True

    return Lines(report, _REPORT_BYTES)


def _signal(group: int, number: int) -> bool:
    return guard.send({group}, number)


async def _empty(group: int) -> None:
    """Waits until nothing is left of a process group."""
    while _signal(group, 0):  # noqa: ASYNC110 - nothing tells of the end of processes that are not our children
        await asyncio.sleep(_LOOK_SECONDS)


@asynccontextmanager
async def _patience(seconds: float) -> AsyncIterator[None]:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            yield


class _Pipe(asyncio.Protocol):
    """A pipe whose other end a process gets; at the end of the block all that was written has been passed on."""

    def __init__(self, on_chunk: Callable[[bytes], None]) -> None:
        self._on_chunk = on_chunk
        self._ended = asyncio.Event()
        ours, self.end = os.pipe()

        self._ours = os.fdopen(ours, "rb", buffering=0)
        self._transport: asyncio.ReadTransport | None = None

    async def __aenter__(self) -> Self:
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: self, self._ours)
        return self

    async def __aexit__(self, *_: object) -> None:
        os.close(self.end)
        assert self._transport is not None
        try:
            async with _patience(_PIPE_SECONDS):
                await self._ended.wait()
        finally:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """More was written."""
        self._on_chunk(data)

    def connection_lost(self, _error: Exception | None) -> None:
        """All ends for writing are closed."""
        self._ended.set()
