"""A queue, and the rules its jobs live by."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from . import limits
from .errors import FieldViolation, InvalidArgument

_NAME = re.compile(limits.QUEUE_NAME)


def check_queue_name(name: str, at: str = "queue") -> str:
    """Returns `name`, or raises InvalidArgument that names the field `at` and the rule."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(FieldViolation(at, f"must be 1 to 63 letters, digits, `_` or `-`; got {name[:80]!r}"))
    return name


class Policy(enum.IntEnum):
    """How many jobs of a key a queue takes, and how many of them run. The numbers are those of the `policy` column."""

    STANDARD = 0
    SHORT = 1
    SINGLETON = 2
    STATELY = 3
    EXCLUSIVE = 4
    KEY_STRICT_FIFO = 5


@dataclass(frozen=True, slots=True)
class Rate:
    """So many starts within any period of this length."""

    starts: int
    period_ms: int


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many jobs of a queue may run, all together and of each group. None: any number."""

    max_active: int | None = None
    rate: Rate | None = None
    group_max_active: int | None = None
    tier_max_active: Mapping[str, int] = field(default_factory=dict)
    """Instead of `group_max_active`, for groups of a tier."""
    group_rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The rules a job lives by, all set. Durations in milliseconds."""

    retry_limit: int = 2
    retry_delay_ms: int = 1_000
    retry_backoff: bool = True
    retry_delay_max_ms: int = 3_600_000
    expire_ms: int = 900_000
    retention_ms: int = 604_800_000
    dead_letter: str | None = None
    """The queue where a job that failed for good goes as a new one."""


@dataclass(frozen=True, slots=True)
class JobOptionsPatch:
    """What somebody said of the rules; None means: not said."""

    retry_limit: int | None = None
    retry_delay_ms: int | None = None
    retry_backoff: bool | None = None
    retry_delay_max_ms: int | None = None
    expire_ms: int | None = None
    retention_ms: int | None = None
    dead_letter: str | None = None

    def over(self, base: JobOptions) -> JobOptions:
        """`base` with what was said laid over it."""
        if self is NOTHING_SAID:
            return base
        said = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        return replace(base, **said) if said else base


NOTHING_SAID = JobOptionsPatch()


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue as stored."""

    name: str
    options: JobOptions = field(default_factory=JobOptions)
    max_data_bytes: int = limits.DATA_BYTES_DEFAULT
    max_depth: int = 0
    """How many of its jobs may wait; 0: any number."""
    policy: Policy = Policy.STANDARD
    limits: QueueLimits = field(default_factory=QueueLimits)
    fair: bool = False
    """Whether its groups take turns."""
    waiting_ms: int | None = None
    """For how long a job may wait; None: forever."""
    paused: bool = False
    gated: bool = False
    """Whether its jobs pass gates before they are ready."""
    guarded: bool = False
    """Whether publishing looks at keys."""
    limited: bool = False
    """Whether claims keep to limits."""
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class QueuePatch:
    """What a request says of a queue; None means: not said."""

    options: JobOptionsPatch = field(default_factory=JobOptionsPatch)
    max_data_bytes: int | None = None
    max_depth: int | None = None
    policy: Policy | None = None
    limits: QueueLimits | None = None
    fair: bool | None = None
    waiting_ms: int | None = None
    """0: forever."""

    @property
    def changes_gates(self) -> bool:
        """Whether jobs that wait already may have to pass other gates."""
        return self.policy is not None or self.limits is not None or self.fair is not None

    def over(self, base: Queue) -> Queue:
        """`base` with what was said laid over it."""
        said = {
            name: value
            for name in ("max_data_bytes", "max_depth", "policy", "limits", "fair", "waiting_ms")
            if (value := getattr(self, name)) is not None
        }
        return replace(base, options=self.options.over(base.options), **said)


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """The jobs of a queue that are live or failed. A number above `exact_up_to` is an estimate."""

    ready: int
    scheduled: int
    active: int
    blocked: int = 0
    failed: int = 0
    exact_up_to: int = 0
    oldest_ready_ms: int | None = None
    """For how long the oldest has been waiting of those first in line at each priority; None if none is ready."""
