"""Blocking handlers in processes of their own: for work that keeps Python busy, or that may have to be killed.

Each process runs one job at a time, so killing it harms no neighbour, and is used again for the next job. A process
that dies fails its job, and is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import pickle
import signal
import socket
from multiprocessing.context import SpawnProcess
from typing import Self

from jobwire import child
from jobwire.frames import LENGTH, Ended, Extend, Frame, Ready, Report, Run, Settled, Stop, pack, unpack
from jobwire.job import Link
from jobwire.outcome import Failed, Outcome, Stopped, raised
from jobwire.running import Batch, BlockingHandler, Given, name_of
from jobwire.v1.queue_service_pb2 import Delivery

log = logging.getLogger(__name__)

PROCESS_NAME = "jobwire handler"
"""The name of every process that runs handlers; by it a worker knows that it must not start again inside one."""

_TIME_TO_STOP = 5.0
"""How long a handler that is told to stop may take until its process is killed, in seconds."""


class ProcessRunner:
    """Runs a blocking handler in processes; one that stops a run by cancelling its task gets it stopped or killed."""

    cancels_tasks = True

    def __init__(self, handler: BlockingHandler, *, batch: bool = False) -> None:  # noqa: ARG002 - each run says so
        try:
            pickle.dumps(handler)
        except Exception as error:  # pickle raises what it likes
            raise TypeError(
                f"{handler!r} cannot run in a process: it must be a function at the top level of a module that other "
                f"processes can import ({error})"
            ) from error
        self._handler = handler
        self._idle: list[_Process] = []

    async def run(self, given: Given, link: Link | Batch) -> Outcome:
        """Run the handler in an idle process, or in a new one."""
        process: _Process | None = None
        try:
            process = self._take_idle() or await _Process.start(self._handler)
            outcome = await process.run(given, link)
        except asyncio.CancelledError:
            # Cancelled before it began, or once more while it was stopping: no more patience.
            outcome = Stopped()
        except Exception as error:  # noqa: BLE001 - such as: no more processes allowed
            outcome = raised(error, told_to_stop=link.cancelled)
        if process is not None:
            if process.usable:
                self._idle.append(process)
            else:
                process.kill()
        return outcome

    async def close(self) -> None:
        """End the idle processes."""
        while self._idle:
            self._idle.pop().kill()

    def _take_idle(self) -> _Process | None:
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
            process.kill()
        return None


class _Process:
    """One process, and the socket to it."""

    def __init__(self, process: SpawnProcess, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.usable = False
        """Whether it waits for a job."""
        self._process = process
        self._reader = reader
        self._writer = writer
        self._ready = False

    @classmethod
    async def start(cls, handler: BlockingHandler) -> Self:
        # Spawned, not forked: a fork would copy the locks of gRPC's threads, but not the threads.
        ours, theirs = socket.socketpair()
        process = multiprocessing.get_context("spawn").Process(
            target=child.main, args=(theirs, handler), name=PROCESS_NAME
        )
        try:
            process.start()
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, reader, writer)

    async def run(self, given: Given, link: Link | Batch) -> Outcome:
        """Run a job or a batch. If the task is cancelled, the handler is told to stop, and has some seconds for it."""
        self.usable = False
        ended = asyncio.ensure_future(self._converse(given, link))
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError, OSError):
                self._writer.write(pack(Stop()))
                async with asyncio.timeout(_TIME_TO_STOP):
                    return await asyncio.shield(ended)
            log.warning("%s: its process did not stop within %g s, and is killed", name_of(given), _TIME_TO_STOP)
            return Stopped()
        finally:
            ended.cancel()

    @property
    def alive(self) -> bool:
        """Whether it still listens."""
        return self._process.exitcode is None and not self._reader.at_eof()

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._writer.close()
        self._process.kill()
        # Its exit status is collected when the next process starts, or when this one ends.

    async def _converse(self, given: Given, link: Link | Batch) -> Outcome:
        links = link.members if isinstance(link, Batch) else [link]
        try:
            self._begin(given, link)
            while True:
                match await self._receive():
                    case Ready():
                        self._ready = True
                    case Report(place, progress, checkpoint):
                        links[place].report(progress, checkpoint)
                    case Extend(place, seconds):
                        links[place].extend(seconds)
                    case Settled(place, outcome):
                        assert isinstance(link, Batch)
                        link.members[place].settle(outcome)
                    case Ended(outcome):
                        self.usable = True
                        return outcome
                    case Run() | Stop():
                        raise AssertionError("a process does not give orders")
        except (asyncio.IncompleteReadError, OSError):
            why = await self._epitaph()
            return Stopped() if link.cancelled else Failed("ProcessDied", why)

    def _begin(self, given: Given, link: Link | Batch) -> None:
        if not isinstance(link, Batch):
            assert isinstance(given, Delivery)
            self._writer.write(pack(Run((given.SerializeToString(),), batch=False)))
            return
        assert not isinstance(given, Delivery)
        self._writer.write(pack(Run(tuple([each.SerializeToString() for each in given]), batch=True)))
        link.on_stop = lambda place: self._writer.write(pack(Stop(place)))
        # Those that were told while the process started.
        for place in (place for place, member in enumerate(link.members) if member.cancelled):
            link.on_stop(place)

    async def _receive(self) -> Frame:
        (size,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        return unpack(await self._reader.readexactly(size))

    async def _epitaph(self) -> str:
        """Say how the process ended, now that its end of the socket is closed."""
        for _ in range(100):
            if self._process.exitcode is not None:
                break
            # asyncio offers nothing to await here: only whoever started a process may collect its exit status.
            await asyncio.sleep(0.01)
        else:
            return "the handler closed the file descriptors of its process, so nothing is known of its end"
        code = self._process.exitcode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if not self._ready:
            return (
                f"the process for the handler could not start ({how}): see its standard error. It must be able to "
                'import the handler\'s module, and a script must start its worker under `if __name__ == "__main__":`'
            )
        if code >= 0:
            return f"the process that ran the handler {how}"
        advice = "; out of memory is the usual reason" if code == -signal.SIGKILL else ""
        return f"the process that ran the handler was {how}{advice}"
