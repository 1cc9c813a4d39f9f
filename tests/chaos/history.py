"""What happened in a run, as those saw it who took part, and what the database says in the end.

Every process of a run writes a file of its own, a line of JSON for each event, with the time on the machine's monotonic
clock, which all processes share. A line is on its way to the disk before the next thing happens (one write per line),
so that what a killed process saw is not lost with it.

The record is made at the wire: each call with what it carried, its answer or its error, each event of a stream. Nothing
in it is concluded; that is the checker's business.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from jobwire_server.domain.queues import Policy


@dataclass(slots=True)
class Event:
    """Something that one process saw, at `t` seconds on the machine's monotonic clock.

    `who` is the process (its file's name); `call` numbers its calls, so that an answer finds what was asked.
    """

    kind: ClassVar[str]

    t: float
    who: str
    call: int


@dataclass(slots=True)
class Publish(Event):
    """A Publish call is about to be sent. `jobs`: id, priority; `labels`: key, group, tier of each, if any has some."""

    kind = "publish"
    queue: str
    jobs: Sequence[tuple[str, int]]
    labels: Sequence[tuple[str, str, str]] = ()


@dataclass(slots=True)
class Published(Event):
    """Its answer. `results`: id, whether it was created by this call."""

    kind = "published"
    results: Sequence[tuple[str, bool]]


@dataclass(slots=True)
class Subscribe(Event):
    """A Subscribe call is about to be sent. `session` is empty unless it resumes. Spans in seconds."""

    kind = "subscribe"
    queues: Sequence[str]
    credits: int
    heartbeat: float
    grace: float
    session: str
    epoch: int
    held: Sequence[str]


@dataclass(slots=True)
class Opened(Event):
    """The first event of a stream."""

    kind = "opened"
    session: str
    epoch: int
    resumed: bool
    lost: Sequence[str]


@dataclass(slots=True)
class Delivered(Event):
    """Deliveries arrived. `jobs`: handle, queue, job id, attempt, retry count, priority."""

    kind = "delivered"
    sequence: int
    jobs: Sequence[tuple[str, str, str, int, int, int]]


@dataclass(slots=True)
class Cancelled(Event):
    """The worker was told to stop a delivery: `reason` is REQUESTED, EXPIRED or LEASE_LOST."""

    kind = "cancelled"
    sequence: int
    handle: str
    reason: str


@dataclass(slots=True)
class Heartbeat(Event):
    """A heartbeat arrived."""

    kind = "heartbeat"
    sequence: int


@dataclass(slots=True)
class Draining(Event):
    """The server sent the client away. `within`: seconds for the resume."""

    kind = "draining"
    sequence: int
    within: float


@dataclass(slots=True)
class Ended(Event):
    """A stream is over. `code`: OK in order, CANCELLED if by the client itself, else gRPC's; `reason` is ours."""

    kind = "ended"
    code: str
    reason: str


@dataclass(slots=True)
class Ack(Event):
    """An Ack call is about to be sent. `items`: handle, what is said (complete, fail, permanent, release, extend)."""

    kind = "ack"
    session: str
    last_sequence: int
    credits: int | None
    close: bool
    items: Sequence[tuple[str, str]]


@dataclass(slots=True)
class Acked(Event):
    """Its answer. `results`: a status for each item (APPLIED, ALREADY_APPLIED, LEASE_LOST, NOT_FOUND, CANCELLED)."""

    kind = "acked"
    results: Sequence[str]
    alive: bool


@dataclass(slots=True)
class Cancel(Event):
    """An operator's CancelJobs call is about to be sent."""

    kind = "cancel"
    queue: str
    jobs: Sequence[str]


@dataclass(slots=True)
class CancelAnswered(Event):
    """Its answer: a status for each (CANCELLED, REQUESTED, ALREADY_FINISHED, NOT_FOUND)."""

    kind = "cancel_answered"
    statuses: Sequence[str]


@dataclass(slots=True)
class Pause(Event):
    """An operator's PauseQueue call, or ResumeQueue if not `paused`, is about to be sent."""

    kind = "pause"
    queue: str
    paused: bool


@dataclass(slots=True)
class PauseAnswered(Event):
    """Its answer: it is done."""

    kind = "pause_answered"


@dataclass(slots=True)
class Failed(Event):
    """A unary call ended with an error: gRPC's code, our reason. Unless they tell, it may have been applied or not."""

    kind = "failed"
    code: str
    reason: str


@dataclass(slots=True)
class Started(Event):
    """A handler began to run a delivery (`call` is 0)."""

    kind = "started"
    job: str
    attempt: int


@dataclass(slots=True)
class Finished(Event):
    """A handler's end: `how` is done, raised or stopped (`call` is 0)."""

    kind = "finished"
    job: str
    attempt: int
    how: str


@dataclass(slots=True)
class Fault(Event):
    """A fault was done to `victim` and lasted until `until`; what it then takes to recover is not part of it.

    `call` is 0. `what` is one of the names in tests/chaos/faults.py. Victims are processes (`server-1`, `worker-2`,
    `postgres`) or the link of one (`worker-2` with a network fault, `server-1 to postgres`).
    """

    kind = "fault"
    what: str
    victim: str
    until: float


KINDS: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (
        Publish,
        Published,
        Subscribe,
        Opened,
        Delivered,
        Cancelled,
        Heartbeat,
        Draining,
        Ended,
        Ack,
        Acked,
        Cancel,
        CancelAnswered,
        Pause,
        PauseAnswered,
        Failed,
        Started,
        Finished,
        Fault,
    )
}

E = TypeVar("E", bound=Event)


class Record:
    """The file in which one process writes down what it sees."""

    def __init__(self, folder: Path, who: str) -> None:
        self.who = who
        self._file = os.open(folder / f"{who}.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            # A kill came in the middle of a line; what follows begins on its own.
            os.write(self._file, b"\n")
        self._calls = 0

    def next_call(self) -> int:
        """A number for a call; those of a process that was started again under the same name go on from its time."""
        self._calls += 1
        return self._calls * 1_000_000 + os.getpid() % 1_000_000

    def note(self, kind: type[E], call: int, *values: Any, t: float | None = None) -> None:
        """Writes an event down, as of now or of `t`."""
        line = json.dumps([kind.kind, time.monotonic() if t is None else t, call, *values], separators=(",", ":"))
        os.write(self._file, line.encode() + b"\n")


def read(folder: Path) -> list[Event]:
    """All that was written down in a run, in the order of time. A line cut short by a kill is left out."""
    events = [event for path in sorted(folder.glob("*.jsonl")) for event in _read(path)]
    events.sort(key=lambda event: event.t)
    return events


def _read(path: Path) -> Iterator[Event]:
    who = path.stem
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                kind, t, call, *values = json.loads(line)
            except ValueError:
                continue
            make = cast(Any, KINDS[kind])
            yield make(t, who, call, *values)


@dataclass(slots=True)
class Outcome:
    """A finished job as the archive has it; the database's times, in seconds on the machine's monotonic clock.

    `state` is completed, cancelled or failed; `token` that of the delivery which brought it, or empty; `errors`:
    attempt, type, worker.
    """

    queue: str
    id: str
    seq: int
    priority: int
    attempt: int
    retry_count: int
    loss_count: int
    release_count: int
    retry_limit: int
    state: str
    token: str
    created: float
    finished: float
    scheduled: bool
    """Whether it was published to start later."""
    errors: Sequence[tuple[int, str, str]]


@dataclass(slots=True)
class Claim:
    """A claim as the database recorded it when it was made."""

    queue: str
    token: str
    session: str
    epoch: int
    worker: str
    t: float
    ids: Sequence[str]
    attempts: Sequence[int]
    begun: float
    """When its transaction began: what was committed before, it saw."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many starts within any period, in seconds."""

    starts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rules:
    """What a queue lets run, the same during the whole run. What is None or empty bounds nothing."""

    policy: Policy = Policy.STANDARD
    max_active: int | None = None
    rate: Rate | None = None
    group_max_active: int | None = None
    tiers: Mapping[str, int] = field(default_factory=dict)
    group_rate: Rate | None = None
    fair: bool = False

    @property
    def gated(self) -> bool:
        """Whether jobs wait for others of their key or group, and so are not claimed in the order of their places."""
        grouped = self.fair or self.group_max_active is not None or bool(self.tiers) or self.group_rate is not None
        return grouped or self.policy in (Policy.SINGLETON, Policy.STATELY, Policy.KEY_STRICT_FIFO)


@dataclass(slots=True)
class EndState:
    """What the database says when all is over.

    `live` are the jobs (queue, id, state) that are not finished; `claims` all claims ever made, kept by a trigger that
    a run puts beside the schema; `rules` those of each queue; `left_behind` rows (table, queue, id) that wait for jobs
    which are finished.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    live: list[tuple[str, str, str]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    rules: dict[str, Rules] = field(default_factory=dict)
    left_behind: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the run was made with, in seconds: the graces that the promises speak of."""

    owner_grace: float = 60.0
    drain_grace: float = 300.0
    renew_interval: float = 5.0
    poll_interval: float = 1.0
    expire_in: float = 900.0


def values_of(event: Event) -> list[Any]:
    """What `Record.note` was given besides the kind and the call; for tests that write a history by hand."""
    return [getattr(event, item.name) for item in fields(event)][3:]
