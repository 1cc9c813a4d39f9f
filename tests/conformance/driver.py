"""A driver program in the hands of a scenario: requests and their answers, events, its end.

README.md describes the lines. Always holds: every wait has a limit, and a scenario that fails shows what the driver had
said until then, to the suite and to people.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

PATIENCE = 60.0
"""How long a scenario waits for what must come, in seconds."""

_LONGEST_LINE = 16 * 1024 * 1024
_TIME_TO_END = 15.0
_SHOWN_LINES = 40

Event = Mapping[str, Any]


class Refused(Exception):
    """The error that a request was answered with."""

    def __init__(self, do: str, error: Mapping[str, Any]) -> None:
        super().__init__(f"{do}: {error}")
        self.code: str = error["code"]
        self.reason: str = error["reason"]
        self.message: str = error["message"]


class DriverFault(AssertionError):
    """The driver did not say what it should have, or said what is no line of the contract."""


class Driver:
    """One process of a driver program.

    Args:
        command: how it is run.
        log: where its standard error goes.
        patience: how long to wait for what must come, in seconds.
    """

    def __init__(self, command: Sequence[str], log: Path, *, patience: float = PATIENCE) -> None:
        self.events: list[Event] = []
        """All it said of itself, in order."""
        self._command = command
        self._log = log
        self._patience = patience
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._heard = asyncio.Condition()
        self._faults: list[str] = []
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LONGEST_LINE,
                # Its settings are what the suite says, not what happens to be set around it.
                env={name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")},
            )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(self.told())
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_TIME_TO_END if error is None else 1):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            if error is None:
                raise DriverFault(f"its input ended {_TIME_TO_END:g} s ago, and it still ran\n{self.told()}") from None
        finally:
            await self._reading
        if error is None and self._faults:
            raise DriverFault(f"{self._faults[0]}\n{self.told()}")

    # Requests, as README.md describes them.

    async def about(self) -> Any:
        return await self.ask("about")

    async def connect(self, target: str, timeout: float = 20.0, **how: object) -> None:
        await self.ask("connect", target=target, timeout=timeout, **how)

    async def publish(self, queue: str, *jobs: Mapping[str, Any]) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = (await self.ask("publish", queue=queue, jobs=jobs))["results"]
        return results

    async def get(self, queue: str, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = (await self.ask("get", queue=queue, job_id=job_id))["job"]
        return job

    async def wait(self, queue: str, job_id: str) -> dict[str, Any]:
        """The job, once it is finished."""
        job: dict[str, Any] = (await self.ask("wait", queue=queue, job_id=job_id, timeout=self._patience))["job"]
        return job

    async def work(self, queue: str, concurrency: int = 1, **terms: object) -> None:
        await self.ask("work", queue=queue, concurrency=concurrency, **({"name": "conformance"} | terms))

    async def complete(self, job_id: str, output: object = None) -> None:
        await self.ask("end", job_id=job_id, **{"as": "complete"}, output=output)

    async def fail(self, job_id: str, type: str, message: str, **how: object) -> None:
        await self.ask("end", job_id=job_id, **{"as": "fail"}, type=type, message=message, **how)

    async def release(self, job_id: str, **how: object) -> None:
        await self.ask("end", job_id=job_id, **{"as": "release"}, **how)

    async def progress(self, job_id: str, fraction: float, note: str, **more: object) -> None:
        await self.ask("progress", job_id=job_id, fraction=fraction, note=note, **more)

    async def extend(self, job_id: str, seconds: float) -> None:
        await self.ask("extend", job_id=job_id, seconds=seconds)

    async def stop(self, **how: object) -> None:
        await self.ask("stop", **how)

    async def ask(self, do: str, **fields: object) -> Any:
        """Send a request, and return its result; raises Refused if it is answered with an error."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):  # that it is gone is told by what follows
            self._process.stdin.write(json.dumps({"id": number, "do": do, **fields}).encode() + b"\n")
            await self._process.stdin.drain()
        try:
            async with asyncio.timeout(self._patience + 5):
                said = await answer
        except TimeoutError:
            raise DriverFault(f"no answer to {do} {fields!r:.200}") from None
        finally:
            del self._answers[number]
        if "error" in said:
            raise Refused(do, said["error"])
        return said["result"]

    # Events.

    def said(self, event: str, **fields: object) -> list[Event]:
        """The events of a kind so far, with these fields."""
        wanted = {"event": event, **fields}
        return [one for one in self.events if wanted.items() <= one.items()]

    async def started(self, job_id: str, run: int = 1) -> Event:
        """The start of a job's handler, for the first time or a later one."""
        return (await self.hears_all("started", run, job_id=job_id))[-1]

    async def hears(self, event: str, **fields: object) -> Event:
        """The first event of a kind with these fields, whether it came already or is yet to come."""
        return (await self.hears_all(event, 1, **fields))[0]

    async def hears_any(self, *kinds: str) -> Event:
        """The first event of one of these kinds."""
        return (await self._hears(1, f"events {' or '.join(map(repr, kinds))}", lambda event: event["event"] in kinds))[
            0
        ]

    async def hears_all(self, event: str, count: int, **fields: object) -> list[Event]:
        """The first so many events of a kind."""
        wanted = {"event": event, **fields}
        return await self._hears(count, f"events {event!r} with {fields}", lambda one: wanted.items() <= one.items())

    async def _hears(self, count: int, what: str, wanted: Callable[[Event], bool]) -> list[Event]:
        found: list[Event] = []

        def enough() -> bool:
            found[:] = filter(wanted, self.events)
            return len(found) >= count

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience), self._heard:
                await self._heard.wait_for(lambda: enough() or self._over)
        if not enough():
            raise DriverFault(f"{len(found)} of {count} {what}")
        return found[:count]

    # Its end.

    def terminate(self) -> None:
        """Send SIGTERM, as whoever deploys does."""
        self._process.send_signal(signal.SIGTERM)

    async def ends(self) -> int:
        """Wait until the program has ended, and return its exit code."""
        try:
            async with asyncio.timeout(self._patience):
                return await self._process.wait()
        except TimeoutError:
            raise DriverFault("it still runs") from None

    def told(self) -> str:
        """What it said so far, for people."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        events = [json.dumps(event)[:300] for event in self.events]
        state = "still runs" if self._process.returncode is None else f"ended with {self._process.returncode}"
        parts = [f"the driver {' '.join(self._command)} {state}"]
        for name, said in (("events", events), ("standard error", lines)):
            left_out = f", the last {_SHOWN_LINES} of {len(said)}" if len(said) > _SHOWN_LINES else ""
            parts += [f"its {name}{left_out}:", *(f"    {line}" for line in said[-_SHOWN_LINES:] or ["(nothing)"])]
        return "\n".join(parts + self._faults)

    @property
    def _over(self) -> bool:
        return self._reading.done() or self._process.returncode is not None

    async def _read(self) -> None:
        """Take what it says, until it says no more."""
        assert self._process.stdout is not None
        try:
            async for line in self._process.stdout:
                await self._take(line)
        except ValueError as error:
            self._faults.append(f"a line is too long: {error}")
            self._process.kill()
        for number, answer in self._answers.items():
            if not answer.done():
                gone = {"code": "UNKNOWN", "reason": "", "message": "the driver ended before it answered"}
                answer.set_result({"id": number, "error": gone})
        await self._process.wait()
        async with self._heard:
            self._heard.notify_all()

    async def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
            if "id" in said:
                answer = self._answers.get(said["id"])
                if answer is not None and not answer.done():
                    assert "result" in said or said["error"].keys() >= {"code", "reason", "message"}
                    answer.set_result(said)
                return
            assert isinstance(said["event"], str)
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
            self._faults.append(f"not a line of the contract: {line!r:.300}")
            return
        async with self._heard:
            self.events.append(said)
            self._heard.notify_all()
