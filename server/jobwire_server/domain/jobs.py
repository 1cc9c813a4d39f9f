"""A job from its publication to its outcome, as values.

Those of which there is one for each job on its way are named tuples, which cost half of what a dataclass does.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from .handles import Handle
from .queues import NOTHING_SAID, JobOptions, JobOptionsPatch


class JobState(enum.IntEnum):
    """Where a job stands. The numbers are those of the contract and of the archive's `state` column."""

    CREATED = 1
    RETRY = 2
    ACTIVE = 3
    COMPLETED = 4
    CANCELLED = 5
    FAILED = 6
    BLOCKED = 7

    @property
    def finished(self) -> bool:
        """Whether an outcome is recorded."""
        return self in FINISHED


FINISHED = frozenset({JobState.COMPLETED, JobState.CANCELLED, JobState.FAILED})


class StopReason(enum.IntEnum):
    """Why a delivery is to stop. The numbers are those of the contract and of the `stop_reason` column."""

    REQUESTED = 1
    EXPIRED = 2
    LEASE_LOST = 3


@dataclass(frozen=True, slots=True)
class Labels:
    """What a job is said to belong to, and which others of its key it is not to be stored beside.

    At most one of the durations is given.
    """

    key: str | None = None
    group: str | None = None
    tier: str | None = None
    throttle_ms: int | None = None
    debounce_ms: int | None = None
    unique_ms: int | None = None


NO_LABELS = Labels()


class NotCreated(enum.IntEnum):
    """Why a job was not stored. The numbers are those of the contract and of publish_keyed()."""

    DUPLICATE_ID = 1
    POLICY = 2
    THROTTLED = 3
    DEBOUNCED = 4
    NOT_UNIQUE = 5


class NewJob(NamedTuple):
    """A job to be stored. `data` and `headers` are JSON text; `headers` is None if there are none."""

    id: UUID
    data: str
    client_id: bool = True
    """Whether the client made the id, so that the job may have been published before."""
    priority: int = 0
    start_after: datetime | None = None
    start_in_ms: int | None = None
    headers: str | None = None
    options: JobOptionsPatch = NOTHING_SAID
    labels: Labels = NO_LABELS

    @property
    def plain(self) -> bool:
        """Whether it has none of what only `publish_keyed` minds."""
        return self.labels is NO_LABELS and self.options.dead_letter is None


class Published(NamedTuple):
    """What became of a NewJob."""

    id: UUID
    created: bool
    data_differs: bool = False
    reason: NotCreated | None = None
    met: UUID | None = None
    """The job that stands in the way."""


class Delivery(NamedTuple):
    """A job under a lease, as it goes to a worker."""

    handle: Handle
    data: str
    headers: str | None
    priority: int
    attempt: int
    retry_count: int
    retry_limit: int
    created_at: datetime
    expire_ms: int
    suspect: bool = False
    """It was lost with a session before, so it runs alone in its session."""
    checkpoint: str | None = None
    """What earlier attempts left, as JSON text."""
    origin: Origin | None = None
    """What it was made of, if it is a dead letter or was redriven."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a handler said of its work."""

    fraction: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Done; `output` is JSON text or None."""

    output: str | None


@dataclass(frozen=True, slots=True)
class Fail:
    """A failed run. Texts are within their limits already."""

    type: str
    message: str
    trace: str
    permanent: bool = False
    retry_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Given back untouched. `delay_ms` None: a pause that grows with the releases."""

    delay_ms: int | None


@dataclass(frozen=True, slots=True)
class Extend:
    """Still running. `expire_ms` None: the time limit stays."""

    expire_ms: int | None
    progress: Progress | None
    checkpoint: str | None = None
    """JSON text for the next attempt; None: what was left before stays; empty: nothing is left."""


Outcome = Complete | Fail | Release | Extend


class AckItem(NamedTuple):
    """One statement about one delivery."""

    handle: Handle
    outcome: Outcome


class AckStatus(enum.IntEnum):
    """What became of an AckItem. The numbers are those of the contract."""

    APPLIED = 1
    ALREADY_APPLIED = 2
    LEASE_LOST = 3
    NOT_FOUND = 4
    CANCELLED = 5


@dataclass(frozen=True, slots=True)
class AckResult:
    """The answer to an AckItem."""

    status: AckStatus
    state: JobState | None = None
    stop: StopReason | None = None
    expires_in_ms: int | None = None


class CancelStatus(enum.IntEnum):
    """What a cancellation did. The numbers are those of the contract."""

    CANCELLED = 1
    REQUESTED = 2
    ALREADY_FINISHED = 3
    NOT_FOUND = 4


@dataclass(frozen=True, slots=True)
class JobFailure:
    """One failed run, as kept with the job."""

    attempt: int
    time: datetime
    type: str
    message: str
    trace: str
    worker: str
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """The job that a dead letter, or a redriven one, was made of."""

    queue: str
    id: UUID
    created_at: datetime
    failed_at: datetime
    attempts: int
    error: JobFailure | None
    first_queue: str | None
    """If that was a dead letter itself: where the first one came from."""
    first_id: UUID | None
    redrives: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands."""

    queue: str
    id: UUID
    state: JobState
    data: str
    headers: str | None
    priority: int
    options: JobOptions
    attempt: int
    retry_count: int
    loss_count: int
    release_count: int
    progress: Progress | None
    output: str | None
    errors: tuple[JobFailure, ...]
    created_at: datetime
    start_after: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker: str
    session_id: UUID | None
    cancel_requested: bool
    revision: str
    labels: Labels = NO_LABELS
    origin: Origin | None = None
    checkpoint: str | None = None
    waits_at: str | None = None
    """The gate that keeps a blocked job: `k` and its key, or `g` and its group."""
