"""A queue, and the rules its jobs live by."""

from __future__ import annotations

import re
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


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The rules a job lives by, all set. Durations in milliseconds."""

    retry_limit: int = 2
    retry_delay_ms: int = 1_000
    retry_backoff: bool = True
    retry_delay_max_ms: int = 3_600_000
    expire_ms: int = 900_000
    retention_ms: int = 604_800_000


@dataclass(frozen=True, slots=True)
class JobOptionsPatch:
    """What somebody said of the rules; None means: not said."""

    retry_limit: int | None = None
    retry_delay_ms: int | None = None
    retry_backoff: bool | None = None
    retry_delay_max_ms: int | None = None
    expire_ms: int | None = None
    retention_ms: int | None = None

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
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class QueuePatch:
    """What a request says of a queue; None means: not said."""

    options: JobOptionsPatch = field(default_factory=JobOptionsPatch)
    max_data_bytes: int | None = None
    max_depth: int | None = None

    def over(self, base: Queue) -> Queue:
        """`base` with what was said laid over it."""
        size = base.max_data_bytes if self.max_data_bytes is None else self.max_data_bytes
        depth = base.max_depth if self.max_depth is None else self.max_depth
        return replace(base, options=self.options.over(base.options), max_data_bytes=size, max_depth=depth)


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """The jobs of a queue that are live or failed. A number above `exact_up_to` is an estimate."""

    ready: int
    scheduled: int
    active: int
    failed: int = 0
    exact_up_to: int = 0
    oldest_ready_ms: int | None = None
    """For how long the oldest has been waiting of those first in line at each priority; None if none is ready."""
