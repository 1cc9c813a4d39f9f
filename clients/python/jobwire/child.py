"""The inside of a process that runs blocking handlers for a worker, one job at a time.

The main thread runs the handler; a second one listens, so that an order to stop arrives while the handler works, and
passes on what the handler reports, so that reporting never waits. When the worker is gone, so is the process.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import sys
import threading
from collections.abc import Awaitable

from jobwire.frames import LENGTH, Ended, Extend, Frame, Ready, Report, Run, Stop, pack, unpack
from jobwire.job import Done
from jobwire.model import Progress
from jobwire.reporting import INTERVAL
from jobwire.running import BlockingHandler, run_blocking
from jobwire.v1.queue_service_pb2 import Delivery


def main(worker: socket.socket, handler: BlockingHandler) -> None:
    """Run jobs until the worker closes its end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C and service managers signal the whole group, but the worker decides what becomes of a running job.
        # A function, since programs that a handler starts would inherit SIG_IGN.
        signal.signal(number, lambda *_: None)
    wire = _Wire(worker)
    threading.Thread(target=wire.listen, name="jobwire link", daemon=True).start()
    wire.send(Ready())
    while True:
        link, delivery = wire.runs.get()
        outcome = run_blocking(handler, delivery, link)
        link.close()
        # The process may be killed while it waits for the next job.
        sys.stdout.flush()
        sys.stderr.flush()
        wire.send(Ended(outcome))


class _ChildLink:
    """The Link of the running handler."""

    def __init__(self, wire: _Wire) -> None:
        self.cancelled = False
        self._wire = wire
        self._latest: Progress | None = None

    def report(self, progress: Progress) -> None:
        self._latest = progress

    def extend(self, seconds: float) -> Awaitable[None]:
        self._wire.send(Extend(seconds))
        return Done()

    def flush(self) -> None:
        """Pass on the latest word; called a few times a second."""
        progress, self._latest = self._latest, None
        if progress is not None:
            self._wire.send(Report(progress))

    def close(self) -> None:
        self._latest = None


class _Wire:
    """The socket to the worker; any thread may send."""

    def __init__(self, worker: socket.socket) -> None:
        self.runs: queue.SimpleQueue[tuple[_ChildLink, Delivery]] = queue.SimpleQueue()
        self._worker = worker
        self._sending = threading.Lock()

    def send(self, frame: Frame) -> None:
        try:
            with self._sending:
                self._worker.sendall(pack(frame))
        except OSError:
            os._exit(1)  # the worker is gone

    def listen(self) -> None:
        link = _ChildLink(self)
        while True:
            readable, _, _ = select.select([self._worker], [], [], INTERVAL)
            link.flush()
            if not readable:
                continue
            match self._receive():
                case Run(delivery):
                    link = _ChildLink(self)
                    self.runs.put((link, Delivery.FromString(delivery)))
                case Stop():
                    link.cancelled = True
                case _:
                    os._exit(0)  # not sys.exit: the main thread may be in the middle of a handler

    def _receive(self) -> Frame | None:
        header = self._receive_exactly(LENGTH.size)
        body = self._receive_exactly(LENGTH.unpack(header)[0]) if header else None
        return unpack(body) if body else None

    def _receive_exactly(self, size: int) -> bytes | None:
        received = bytearray()
        while len(received) < size:
            try:
                part = self._worker.recv(size - len(received))
            except OSError:
                return None
            if not part:
                return None
            received += part
        return bytes(received)
