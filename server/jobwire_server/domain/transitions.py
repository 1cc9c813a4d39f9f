"""Every way in which a job changes its standing, as one table, and what each counts against it.

The statements decide (settle.sql above all), since the live row is where rivals meet; this says what they are to
decide. tests/store/test_transitions.py walks every row through the real store, the model of tests/model lives by the
table, and docs/architecture.md shows it. An event that has no row for a job's standing changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .jobs import JobState
from .limits import POISON_LOSSES, SUSPECT_LOSSES


class Standing(enum.Enum):
    """Where a job stands: finer than its state, by what points to it and by what it was told."""

    NONE = "none"
    """Nobody knows it, or it was deleted."""
    SCHEDULED = "scheduled"
    BLOCKED = "blocked"
    """It waits for the turn of its key or group."""
    READY = "ready"
    ACTIVE = "active"
    EXPIRED = "expired"
    """Active, past its time limit and told to stop: its lease is valid until the grace is over."""
    STOPPING = "stopping"
    """Active, cancelled and told to stop; the same holds."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING = frozenset({Standing.SCHEDULED, Standing.BLOCKED, Standing.READY})
RUNNING = frozenset({Standing.ACTIVE, Standing.EXPIRED, Standing.STOPPING})
OVER = frozenset({Standing.COMPLETED, Standing.FAILED, Standing.CANCELLED})


class Event(enum.Enum):
    """What befalls a job."""

    PUBLISH = "publish"
    DUE = "due"
    """Its time has come."""
    ADMIT = "admit"
    """Its turn has come."""
    OVERTAKEN = "overtaken"
    """A better job of its key or group came before it was claimed."""
    CLAIM = "claim"
    COMPLETE = "complete"
    FAIL = "fail"
    RELEASE = "release"
    EXTEND = "extend"
    LIMIT = "time limit"
    GRACE = "stop grace over"
    LOST = "lost"
    """Its worker died, having received it."""
    RETURNED = "returned"
    """Its lease ends through no fault of its worker: never received, replica gone, session closed."""
    RESTORE = "restore"
    """Of the database, from a backup."""
    CANCEL = "cancel"
    RUN = "run now"
    """An operator's word, as are the rest: its time has come early."""
    RETRY = "retry"
    """With all its retries before it."""
    RESUME = "resume"
    """As it was when it was cancelled."""
    DELETE = "delete"


class When(enum.Enum):
    """What else has to be so for a row to apply."""

    ALWAYS = ""
    PERMANENT = "permanent"
    RETRY_LEFT = "a retry left"
    NO_RETRY_LEFT = "no retry left"
    LOSS_LEFT = f"not the {POISON_LOSSES}th time"
    POISON = f"for the {POISON_LOSSES}th time"


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted: deliveries, retries used up, losses, releases, and errors noted."""

    attempt: int = 0
    retry_count: int = 0
    loss_count: int = 0
    release_count: int = 0
    errors: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.attempt + other.attempt,
            self.retry_count + other.retry_count,
            self.loss_count + other.loss_count,
            self.release_count + other.release_count,
            self.errors + other.errors,
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """A job, as far as transitions depend on it. `gated`: it waits for turns, by its queue's policy or limits."""

    standing: Standing = Standing.NONE
    counts: Counts = Counts()
    retry_limit: int = 0
    gated: bool = False

    @property
    def state(self) -> JobState | None:
        """As the contract calls it. A job that was delivered before waits for a retry."""
        if self.standing in OVER:
            return JobState[self.standing.name]
        if self.standing in RUNNING:
            return JobState.ACTIVE
        if self.standing is Standing.NONE:
            return None
        if self.standing is Standing.BLOCKED:
            return JobState.BLOCKED
        return JobState.RETRY if self.counts.attempt else JobState.CREATED

    @property
    def suspect(self) -> bool:
        """Whether it is claimed alone."""
        return self.counts.loss_count >= SUSPECT_LOSSES


class Again(enum.Enum):
    """Where a job goes that is to run, or to run again: `scheduled` if it has to wait, `blocked` if it is gated."""

    WAITS = "scheduled, blocked or ready"


@dataclass(frozen=True, slots=True)
class Row:
    """From any standing of `before` an event leads to `after`, and is counted so. Of several the first applies."""

    event: Event
    before: frozenset[Standing]
    after: Standing | Again
    when: When = When.ALWAYS
    counts: Counts = Counts()
    anew: bool = False
    """Whether retries and losses are counted from 0 again."""


def _row(
    event: Event,
    before: Standing | frozenset[Standing],
    after: Standing | Again,
    when: When = When.ALWAYS,
    **counts: int,
) -> Row:
    return Row(event, before if isinstance(before, frozenset) else frozenset({before}), after, when, Counts(**counts))


def _overdue(event: Event) -> Iterator[Row]:
    """What ends a lease without its worker: a limit that passed is a failed run, a cancel is settled."""
    yield _row(event, Standing.EXPIRED, Again.WAITS, When.RETRY_LEFT, retry_count=1, errors=1)
    yield _row(event, Standing.EXPIRED, Standing.FAILED, When.NO_RETRY_LEFT, errors=1)
    yield _row(event, Standing.STOPPING, Standing.CANCELLED)


_UNSTOPPED = frozenset({Standing.ACTIVE, Standing.EXPIRED})

TABLE: tuple[Row, ...] = (
    _row(Event.PUBLISH, Standing.NONE, Again.WAITS),
    _row(Event.DUE, Standing.SCHEDULED, Again.WAITS),
    _row(Event.ADMIT, Standing.BLOCKED, Standing.READY),
    _row(Event.OVERTAKEN, Standing.READY, Standing.BLOCKED),
    _row(Event.CLAIM, Standing.READY, Standing.ACTIVE, attempt=1),
    _row(Event.COMPLETE, RUNNING, Standing.COMPLETED),
    _row(Event.FAIL, _UNSTOPPED, Standing.FAILED, When.PERMANENT, errors=1),
    _row(Event.FAIL, _UNSTOPPED, Again.WAITS, When.RETRY_LEFT, retry_count=1, errors=1),
    _row(Event.FAIL, _UNSTOPPED, Standing.FAILED, When.NO_RETRY_LEFT, errors=1),
    _row(Event.FAIL, Standing.STOPPING, Standing.CANCELLED),
    _row(Event.RELEASE, _UNSTOPPED, Again.WAITS, release_count=1),
    _row(Event.RELEASE, Standing.STOPPING, Standing.CANCELLED),
    *(_row(Event.EXTEND, standing, standing) for standing in (Standing.ACTIVE, Standing.EXPIRED, Standing.STOPPING)),
    _row(Event.LIMIT, Standing.ACTIVE, Standing.EXPIRED),
    *_overdue(Event.GRACE),
    _row(Event.LOST, Standing.ACTIVE, Again.WAITS, When.LOSS_LEFT, loss_count=1, errors=1),
    _row(Event.LOST, Standing.ACTIVE, Standing.FAILED, When.POISON, loss_count=1, errors=1),
    *_overdue(Event.LOST),
    _row(Event.RETURNED, Standing.ACTIVE, Again.WAITS),
    *_overdue(Event.RETURNED),
    _row(Event.RESTORE, RUNNING, Again.WAITS),
    _row(Event.CANCEL, WAITING, Standing.CANCELLED),
    _row(Event.CANCEL, RUNNING, Standing.STOPPING),
    _row(Event.RUN, Standing.SCHEDULED, Again.WAITS),
    Row(Event.RETRY, frozenset({Standing.FAILED, Standing.CANCELLED}), Again.WAITS, anew=True),
    _row(Event.RESUME, Standing.CANCELLED, Again.WAITS),
    _row(Event.DELETE, WAITING | OVER, Standing.NONE),
)

_BY_PLACE: dict[tuple[Standing, Event], list[Row]] = {}
for _each in TABLE:
    for _standing in _each.before:
        _BY_PLACE.setdefault((_standing, _each.event), []).append(_each)


def _holds(when: When, job: Facts, permanent: bool) -> bool:
    match when:
        case When.ALWAYS:
            return True
        case When.PERMANENT:
            return permanent
        case When.RETRY_LEFT:
            return job.counts.retry_count < job.retry_limit
        case When.NO_RETRY_LEFT:
            return job.counts.retry_count >= job.retry_limit
        case When.LOSS_LEFT:
            return job.counts.loss_count + 1 < POISON_LOSSES
        case When.POISON:
            return job.counts.loss_count + 1 >= POISON_LOSSES


def row_for(job: Facts, event: Event, *, permanent: bool = False) -> Row | None:
    """The row that applies; None if the event changes nothing."""
    for row in _BY_PLACE.get((job.standing, event), ()):
        if _holds(row.when, job, permanent):
            return row
    return None


def after(job: Facts, row: Row, *, later: bool = False) -> Facts:
    """The job, once the row has applied. `later`: it has to wait for a time before it may run."""
    standing = row.after
    if standing is Standing.NONE:
        return Facts(retry_limit=job.retry_limit, gated=job.gated)
    if isinstance(standing, Again):
        standing = Standing.SCHEDULED if later else Standing.BLOCKED if job.gated else Standing.READY
    counts = replace(job.counts, retry_count=0, loss_count=0) if row.anew else job.counts
    return replace(job, standing=standing, counts=counts + row.counts)
