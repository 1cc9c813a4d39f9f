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
from dataclasses import dataclass

from jobwire.frames import LENGTH, Ended, Extend, Frame, Ready, Report, Run, Settled, Stop, pack, unpack
from jobwire.job import Done
from jobwire.model import Progress
from jobwire.outcome import Outcome
from jobwire.reporting import INTERVAL
from jobwire.running import Batch, BlockingHandler, Given, argument_for, run_blocking
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
        run = wire.runs.get()
        link = Batch(run.links) if run.batch else run.links[0]
        outcome = run_blocking(handler, argument_for(batch=run.batch), run.given, link)
        for each in run.links:
            each.flush()
        # The process may be killed while it waits for the next job.
        sys.stdout.flush()
        sys.stderr.flush()
        wire.send(Ended(outcome))


class _ChildLink:
    """The Link of the running handler, or of one job of its batch."""

    def __init__(self, wire: _Wire, place: int) -> None:
        self.cancelled = False
        self.settled = False
        self._wire = wire
        self._place = place
        self._latest: Progress | None = None
        self._checkpoint: str | None = None

    def report(self, progress: Progress, checkpoint: str | None = None) -> None:
        self._latest = progress
        if checkpoint is not None:
            self._checkpoint = checkpoint

    def extend(self, seconds: float) -> Awaitable[None]:
        self._wire.send(Extend(self._place, seconds))
        return Done()

    def flush(self) -> None:
        """Pass on the latest word; called a few times a second."""
        progress, self._latest = self._latest, None
        checkpoint, self._checkpoint = self._checkpoint, None
        if progress is not None:
            self._wire.send(Report(self._place, progress, checkpoint))

    def settle(self, outcome: Outcome) -> None:
        if not self.settled:
            self.settled = True
            self.flush()
            self._wire.send(Settled(self._place, outcome))


@dataclass(frozen=True)
class _ChildRun:
    deliveries: list[Delivery]
    links: list[_ChildLink]
    batch: bool

    @property
    def given(self) -> Given:
        return self.deliveries if self.batch else self.deliveries[0]


class _Wire:
    """The socket to the worker; any thread may send."""

    def __init__(self, worker: socket.socket) -> None:
        self.runs: queue.SimpleQueue[_ChildRun] = queue.SimpleQueue()
        self._worker = worker
        self._sending = threading.Lock()

    def send(self, frame: Frame) -> None:
        try:
            with self._sending:
                self._worker.sendall(pack(frame))
        except OSError:
            os._exit(1)  # the worker is gone

    def listen(self) -> None:
        links: list[_ChildLink] = []
        while True:
            readable, _, _ = select.select([self._worker], [], [], INTERVAL)
            for link in links:
                link.flush()
            if not readable:
                continue
            match self._receive():
                case Run(deliveries, batch):
                    links = [_ChildLink(self, place) for place in range(len(deliveries))]
                    self.runs.put(_ChildRun([Delivery.FromString(each) for each in deliveries], links, batch))
                case Stop(place):
                    for link in links if place is None else [links[place]]:
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
