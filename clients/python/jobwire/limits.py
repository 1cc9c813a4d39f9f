"""What a job belongs to, and what a queue allows: its policy, limits and rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypedDict

from jobwire.wire import Seconds, in_seconds


@dataclass(frozen=True)
class Group:
    """Whom a job is done for: a tenant, a customer, a user."""

    id: str
    """1 to 200 characters."""
    tier: str = ""
    """The kind of group, by which a queue may have another limit for it; empty: none."""


class QueuePolicy(StrEnum):
    """How many jobs of a key may wait and run. Jobs without a key are of one key, the empty one."""

    UNSPECIFIED = "unspecified"
    """A policy that this version of the client does not know."""
    STANDARD = "standard"
    """Any number of both. The default."""
    SHORT = "short"
    """At most one waits for its first run; any number run."""
    SINGLETON = "singleton"
    """Any number wait, one runs."""
    STATELY = "stately"
    """At most one waits for its first run, one runs; those that wait for a retry stand beside them."""
    EXCLUSIVE = "exclusive"
    """One lives: waits, runs, or waits for a retry."""
    KEY_STRICT_FIFO = "key_strict_fifo"
    """One after the other in the order of publishing; one that waits or failed holds up those behind it."""


@dataclass(frozen=True, init=False)
class Rate:
    """So many starts within any period of a length."""

    starts: int
    """1 to 1,000,000."""
    period: float
    """100 ms to 31 days, given as seconds or timedelta, and seconds when read."""

    def __init__(self, starts: int, period: Seconds) -> None:
        object.__setattr__(self, "starts", starts)
        object.__setattr__(self, "period", in_seconds(period))


@dataclass(frozen=True)
class QueueLimits:
    """What bounds the running jobs of a queue, over all replicas. What is None is not bounded."""

    max_active: int | None = None
    """How many of its jobs may be active at once: 1 to 1,000,000."""
    rate: Rate | None = None
    """How many of its jobs may start within a period."""
    group_max_active: int | None = None
    """How many jobs of each group may be active at once: 1 to 1,000,000."""
    tier_max_active: Mapping[str, int] = field(default_factory=dict)
    """The same for groups of a tier, instead of `group_max_active`. At most 100 tiers."""
    group_rate: Rate | None = None
    """How many jobs of each group may start within a period."""


class JobLabels(TypedDict, total=False):
    """What a job belongs to, and which others of its key keep it from being stored. None is as left out.

    Only one of `throttle`, `debounce` and `unique_for` can be given: 1 ms to 365 days.
    """

    key: str | None
    """What it is about, such as an order's number: others of the same key are minded as the queue's policy says."""
    group: Group | str | None
    """Whom it is done for, where the queue limits groups or has them take turns; a text is the group's id."""
    throttle: Seconds | None
    """Not stored if one of its key was within the same slot of time; slots of this length are counted from 1970."""
    debounce: Seconds | None
    """The same, but the second one of a slot is stored, to start with the next slot."""
    unique_for: Seconds | None
    """Not stored if one of its key was within this time before, whether it has finished or not."""


class QueueSettings(TypedDict, total=False):
    """What may be said of a queue beside its options. What is left out or None has its default, or stays as it is."""

    max_data_bytes: int | None
    """The largest payload and output: 1 to 524288, default 65536."""
    max_depth: int | None
    """How many of its jobs may wait; 0, the default: any number. More are refused with QueueFull."""
    policy: QueuePolicy | str | None
    """How many jobs of a key it takes and runs. Default: standard."""
    limits: QueueLimits | None
    """How many of its jobs may run. A change replaces all limits by these."""
    fair: bool | None
    """Whether its groups take turns. Default False."""
    waiting_retention: Seconds | None
    """For how long a job may wait before it is cancelled: 1 s to 3650 days; 0, the default: forever."""
