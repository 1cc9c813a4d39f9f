"""Dead letters, redriving them, and keys that a failed job holds up."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class Refusal(enum.IntEnum):
    """Why a queue did not take a job that comes from another one.

    The first are those of publish_keyed(), the others those of the `refusal` column; the contract has numbers of its
    own.
    """

    POLICY = 2
    NO_QUEUE = 16
    NO_KEY = 17
    NO_ORIGIN = 18
    WENT_ON = 19


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A dead letter that its queue did not take yet."""

    queue: str
    job_id: UUID
    target: str
    key: str | None
    failed_at: datetime
    tries: int
    retry_at: datetime
    refusal: Refusal
    met: UUID | None


@dataclass(frozen=True, slots=True)
class Carried:
    """What a look at the letters for one queue brought."""

    target: str
    taken: int
    refused: int
    gated: bool


@dataclass(frozen=True, slots=True)
class RedriveFilter:
    """Which dead letters are meant; None: any."""

    origin_queue: str | None = None
    error_type: str | None = None
    failed_after: datetime | None = None
    failed_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class RedrivePlace:
    """How far a redrive of several steps has come.

    `began` is when it did: what fails again later is left alone. `after` is the last id it has seen to among those that
    wait, or have finished.
    """

    began: datetime | None = None
    redriven: int = 0
    finished: bool = False
    after: UUID | None = None


@dataclass(frozen=True, slots=True)
class RedriveOrder:
    """What is to be redriven, and where to. `limit` 0: all of it; `rate` 0: at once."""

    queue: str
    destination: str | None = None
    filter: RedriveFilter = RedriveFilter()
    finished: bool = False
    limit: int = 0
    rate: float = 0.0
    dry_run: bool = False


class Redriven(NamedTuple):
    """What became of one dead letter: the job it is now, or why it stays."""

    id: UUID
    queue: str
    new_id: UUID | None
    refusal: Refusal | None = None
    met: UUID | None = None


@dataclass(frozen=True, slots=True)
class RedriveStep:
    """What one step of a redrive did, and where the next begins; None if it was the last."""

    results: list[Redriven]
    redriven: int
    next: RedrivePlace | None
    gated: frozenset[str] = frozenset()
    """Those of the queues concerned whose jobs pass gates."""


@dataclass(frozen=True, slots=True)
class BlockedKey:
    """A key that a failed job holds up."""

    key: str
    job_id: UUID
    since: datetime | None
    """When it failed; None: its record is not kept any more."""
    waiting: int


class Unblock(enum.IntEnum):
    """What is to become of the failed job. The numbers are those of the contract."""

    SKIP = 1
    RETRY = 2
    DEAD_LETTER = 3


class UnblockStatus(enum.IntEnum):
    """What became of it. The numbers are those of the contract."""

    DONE = 1
    NOT_BLOCKED = 2
    JOB_GONE = 3
    NO_DEAD_LETTER_QUEUE = 4
    DEAD_LETTER_TAKEN = 5


class Unblocked(NamedTuple):
    """What became of a key."""

    key: str
    job_id: UUID | None
    status: UnblockStatus
