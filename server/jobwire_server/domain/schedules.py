"""Schedules: when jobs are made by themselves, and what becomes of times at which that was not possible.

No clock is read here: the store brings the database's time along.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import NamedTuple
from uuid import UUID, uuid5

from . import limits
from .cron import Cron
from .jobs import NewJob

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Every:
    """Due each time so many milliseconds have passed since `anchor`, whatever clocks on walls do."""

    ms: int
    anchor: datetime

    def walk(self, moment: datetime) -> Iterator[datetime]:
        """The instants after `moment` at which it is due."""
        step = timedelta(milliseconds=self.ms)
        instant = self.anchor + max(1, (moment - self.anchor) // step + 1) * step
        while True:
            yield instant
            instant += step


@dataclass(frozen=True, slots=True)
class Once:
    """Due at one point in time."""

    at: datetime

    def walk(self, moment: datetime) -> Iterator[datetime]:
        """That point, if it is after `moment`."""
        if self.at > moment:
            yield self.at


Timing = Cron | Every | Once


class MissedRuns(enum.IntEnum):
    """What becomes of due times that are past for longer than the tolerance. The numbers are those of the contract."""

    SKIP = 1
    """Nothing."""
    ONCE = 2
    """One run stands for all of them: the last one's, or that of the time that is due now."""
    ALL = 3
    """A run for each, of the last ones up to a bound."""


class ScheduleState(enum.IntEnum):
    """Where a schedule stands. The numbers are those of the contract."""

    ACTIVE = 1
    PAUSED = 2
    ENDED = 3
    """No due time is to come."""


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """What somebody said of a schedule. `job` is what its jobs have in common; its id means nothing."""

    name: str
    queue: str
    job: NewJob
    timing: Timing
    missed: MissedRuns = MissedRuns.SKIP
    missed_limit: int = limits.MISSED_LIMIT_DEFAULT
    tolerance_ms: int = limits.TOLERANCE_DEFAULT


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as stored."""

    id: UUID
    spec: ScheduleSpec
    paused: bool
    next_run_at: datetime | None
    """The first due time that has not had its turn; None if it is paused or has ended."""
    revision: int
    """Changes with whatever somebody changes, and not with its runs."""
    runs: int
    last_due_at: datetime | None
    """The last due time that had its turn."""
    last_run_at: datetime | None
    last_job_id: UUID | None
    last_error: str
    last_error_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def state(self) -> ScheduleState:
        if self.paused:
            return ScheduleState.PAUSED
        return ScheduleState.ENDED if self.next_run_at is None else ScheduleState.ACTIVE

    def job_id(self, due: datetime) -> UUID:
        """The id of the job of a due time, the same whoever makes it."""
        return uuid5(self.id, due.isoformat())


class Plan(NamedTuple):
    """What is to be done: the due times that get their job now, and the due time after that."""

    runs: tuple[datetime, ...]
    next: datetime | None


def after(timing: Timing, moment: datetime) -> datetime | None:
    """The first due time after `moment`."""
    return next(timing.walk(moment), None)


def plan(spec: ScheduleSpec, due: datetime, now: datetime, most: int) -> Plan:
    """What is to be done at `now` for a schedule whose time `due` has come; at most `most` runs, the oldest first."""
    punctual = now - timedelta(milliseconds=spec.tolerance_ms)
    late: list[datetime] = []
    first: datetime | None = due
    if due < punctual:
        first = after(spec.timing, punctual - _TICK)
        if spec.missed is MissedRuns.ALL:
            late = _last(spec.timing, due, punctual, spec.missed_limit)
        elif spec.missed is MissedRuns.ONCE and (first is None or first > now):
            late = _last(spec.timing, due, punctual, 1)
    runs = late[:most]
    if first is not None and first <= now:
        runs += islice(_until(spec.timing, first, now), most - len(runs))
    return Plan(tuple(runs), after(spec.timing, runs[-1] if runs else now))


def _until(timing: Timing, first: datetime, now: datetime) -> Iterator[datetime]:
    return takewhile(lambda instant: instant <= now, timing.walk(first - _TICK))


def _last(timing: Timing, due: datetime, end: datetime, count: int) -> list[datetime]:
    """The last due times from `due` on and before `end`, at most `count`.

    Looked for in a span before `end` that doubles: between `due` and `end` may be years of seconds.
    """
    span = timedelta(seconds=count)
    while True:
        start = max(due, end - span)
        found = deque(takewhile(lambda instant: instant < end, timing.walk(start - _TICK)), maxlen=count)
        if len(found) == count or start == due:
            return list(found)
        span *= 2
