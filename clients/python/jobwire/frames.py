"""What a worker and a process that runs its handlers say to each other over a socket pair.

A frame is a pickled message behind its length. Both ends are the same program, one started by the other.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass

from jobwire.model import Progress
from jobwire.outcome import Outcome

LENGTH = struct.Struct("!I")


@dataclass(frozen=True)
class Ready:
    """From the process: it has started, and waits for jobs."""


@dataclass(frozen=True)
class Run:
    """To the process: run the handler on these serialized Deliveries."""

    deliveries: tuple[bytes, ...]
    batch: bool
    """Whether the handler takes a list; if not, there is one. A place, below, is that of a delivery among them."""


@dataclass(frozen=True)
class Stop:
    """To the process: the run is to stop, or that of one job of a batch."""

    place: int | None = None


@dataclass(frozen=True)
class Report:
    """From the process: how far the run is."""

    place: int
    progress: Progress
    checkpoint: str | None


@dataclass(frozen=True)
class Extend:
    """From the process: it asks for a new time limit."""

    place: int
    seconds: float


@dataclass(frozen=True)
class Settled:
    """From the process: what became of one job of a batch."""

    place: int
    outcome: Outcome


@dataclass(frozen=True)
class Ended:
    """From the process: the run is over, and it waits for the next."""

    outcome: Outcome


Frame = Ready | Run | Stop | Report | Extend | Settled | Ended


def pack(frame: Frame) -> bytes:
    """Return a frame as it travels."""
    body = pickle.dumps(frame)
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> Frame:
    """Return the frame of a body."""
    frame: Frame = pickle.loads(body)  # noqa: S301 - written by our own process
    return frame
