"""Processes that a command starts and stops: each writes a log of its own, and none outlives the command's end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

_STOP_SECONDS = 40.0
_READY_SECONDS = 30.0
_LOOK_SECONDS = 0.05
_TAIL_LINES = 15


class ChildError(RuntimeError):
    """A process ended that should not have, or did not end in order. The message has the end of its log."""


class Child:
    """A running process."""

    def __init__(self, name: str, log: Path, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def failure(self, what: str) -> ChildError:
        """The error that says `what` happened, with the end of the log."""
        with self.log.open(errors="replace") as lines:
            tail = "".join(f"  {line}" for line in deque(lines, _TAIL_LINES))
        return ChildError(f"the {self.name} {what}; its log {self.log} ends with\n{tail}")

    async def ended(self) -> None:
        """Waits until it ends by itself, which is an error."""
        code = await self._process.wait()
        raise self.failure(f"ended by itself, with exit code {code}")

    async def logged(self, event: str, within: float = _READY_SECONDS) -> Mapping[str, object]:
        """Waits for a JSON line in the log whose event is this, and returns it.

        ChildError if it does not come within so many seconds (default 30).
        """
        try:
            async with asyncio.timeout(within):
                return await self._logged(event)
        except TimeoutError:
            raise self.failure(f"was not {event} within {within:g} s") from None

    async def _logged(self, event: str) -> Mapping[str, object]:
        ended = asyncio.ensure_future(self.ended())
        try:
            with self.log.open("rb") as lines:
                line = b""
                while True:
                    line += lines.readline()
                    if line.endswith(b"\n"):
                        if (found := _parsed(line)).get("event") == event:
                            return found
                        line = b""
                    elif ended.done():
                        await ended
                    else:
                        await asyncio.wait([ended], timeout=_LOOK_SECONDS)
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def stop(self) -> None:
        """Asks it to stop and waits for its end; raises ChildError if that is not in order."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            raise self.failure(f"did not stop within {_STOP_SECONDS:g} s") from None
        if code != 0:
            raise self.failure(f"stopped with exit code {code}")

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def kill(self) -> None:
        """Ends it at once, if it still runs."""
        if self._process.returncode is None:
            self.signal(signal.SIGKILL)
            await self._process.wait()


@asynccontextmanager
async def child(
    name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """Runs `command`, its output in `log`, until the block ends; then it is stopped, or killed after an error."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            # A Ctrl-C on the terminal is ours to handle, in order.
            start_new_session=True,
        )
    started = Child(name, log, process)
    try:
        yield started
        await started.stop()
    finally:
        await started.kill()


def _parsed(line: bytes) -> Mapping[str, object]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
