"""What an operator does with jobs: which are meant, what is to become of them, and the record of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from .jobs import FINISHED, JobState
from .queues import NOTHING_SAID, JobOptionsPatch

WAITING: Final = frozenset({JobState.CREATED, JobState.RETRY, JobState.BLOCKED})
LIVE: Final = WAITING | {JobState.ACTIVE}


class Change(enum.StrEnum):
    """What may become of a job by an operator's hand. The words are those of the contract and of the record."""

    CANCEL = "cancel"
    RETRY = "retry"
    RESUME = "resume"
    DELETE = "delete"
    RELEASE = "release"
    MOVE = "move"
    RUN = "run"
    ERASE = "erase"

    @property
    def applies_to(self) -> frozenset[JobState]:
        """The states in which a job may be changed so."""
        return _APPLIES_TO[self]


_APPLIES_TO: Final = {
    Change.CANCEL: LIVE,
    Change.RETRY: frozenset({JobState.FAILED, JobState.CANCELLED}),
    Change.RESUME: frozenset({JobState.CANCELLED}),
    Change.DELETE: WAITING | FINISHED,
    Change.RELEASE: frozenset({JobState.ACTIVE}),
    Change.MOVE: WAITING,
    Change.RUN: frozenset({JobState.CREATED, JobState.RETRY}),
    Change.ERASE: WAITING | FINISHED,
}


class ChangeStatus(enum.IntEnum):
    """What a change did to one job. The numbers are those of the contract."""

    CHANGED = 1
    REQUESTED = 2
    WRONG_STATE = 3
    NOT_FOUND = 4
    ID_TAKEN = 5
    KEY_TAKEN = 6

    @property
    def done(self) -> bool:
        """Whether the job is changed, or will be."""
        return self in (ChangeStatus.CHANGED, ChangeStatus.REQUESTED)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are meant: those for which everything holds that is not None. `states` empty: any."""

    states: frozenset[JobState] = frozenset()
    key: str | None = None
    group: str | None = None
    worker: str | None = None
    error_type: str | None = None
    error_text: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    finished_from: datetime | None = None
    finished_before: datetime | None = None
    priority_from: int | None = None
    priority_to: int | None = None
    contains: str | None = None
    """JSON text."""

    @property
    def possible(self) -> frozenset[JobState]:
        """The states in which a job may match."""
        states = self.states or frozenset(JobState)
        return states & FINISHED if self.finished_from or self.finished_before else states


class WhichJobs(enum.IntEnum):
    """Which of several jobs of a key. The numbers are those of the contract."""

    NEWEST = 1
    OLDEST = 2
    ALL = 3

    @property
    def most(self) -> int:
        """How many that may be."""
        return 1_000 if self is WhichJobs.ALL else 1


@dataclass(frozen=True, slots=True)
class JobPatch:
    """What is to change of waiting jobs, named by `job_id` or by `key`; None: it stays. `data` is JSON text."""

    job_id: UUID | None = None
    key: str | None = None
    which: WhichJobs = WhichJobs.NEWEST
    data: str | None = None
    priority: int | None = None
    start_after: datetime | None = None
    start_in_ms: int | None = None
    options: JobOptionsPatch = NOTHING_SAID


@dataclass(frozen=True, slots=True)
class Place:
    """Up to where a walk over jobs has come: by queue, in each by descending id. `before` None: the queue's begin."""

    queue: str
    before: UUID | None = None


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk over what a filter matches that takes several calls: where it goes on, and what it has come to so far.

    `left` is how many jobs may still be changed, None for any number; `action` is the record that is to grow.
    """

    place: Place | None = None
    matched: int = 0
    changed: int = 0
    left: int | None = None
    action: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done to which jobs of a queue (None: of all).

    `by` is who asks, `selection` and `what` (else the change) what the record is to say of it.
    """

    change: Change
    queue: str | None
    by: str
    selection: dict[str, object]
    destination: str | None = None
    what: str = ""


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of one job; `state` is what it was met in, None if it was not found."""

    queue: str
    id: UUID
    status: ChangeStatus
    state: JobState | None


@dataclass(frozen=True, slots=True)
class Action:
    """What one operator did at one time. `selection` is JSON."""

    id: int
    at: datetime
    actor: str
    what: str
    queue: str | None
    selection: dict[str, object]
    matched: int
    changed: int
