"""What callers hand in and get back: plain, frozen values. No protobuf type leaves the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Unpack

from jobwire.limits import Group, JobLabels, QueueLimits, QueuePolicy
from jobwire.wire import Seconds, in_seconds, new_job_id


class JobState(StrEnum):
    """Where a job stands."""

    UNSPECIFIED = "unspecified"
    """A state that this version of the client does not know."""
    CREATED = "created"
    """Waits for its first delivery."""
    RETRY = "retry"
    """Waits for another delivery."""
    ACTIVE = "active"
    """Is with a worker."""
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    """Out of retries, failed for good, or given up as a poison job."""
    BLOCKED = "blocked"
    """Waits for something other than time."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self in (JobState.COMPLETED, JobState.CANCELLED, JobState.FAILED)


class NotCreatedReason(StrEnum):
    """Why a job was not stored."""

    NONE = ""
    """It was stored."""
    DUPLICATE_ID = "duplicate_id"
    """A job of this id is in the queue already, or finished lately."""
    POLICY = "policy"
    """The queue's policy allows no further job of its key now."""
    THROTTLED = "throttled"
    """There was one of its key in this slot of time."""
    DEBOUNCED = "debounced"
    """There is one of its key for the next slot of time already."""
    NOT_UNIQUE = "not_unique"
    """There was one of its key lately."""
    OTHER = "other"
    """A reason that this version of the client does not know."""


class CancelStatus(StrEnum):
    """What a cancellation did to one job."""

    UNSPECIFIED = "unspecified"
    """An outcome that this version of the client does not know."""
    CANCELLED = "cancelled"
    REQUESTED = "requested"
    """The job runs; its worker is told."""
    ALREADY_FINISHED = "already_finished"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, init=False)
class JobOptions:
    """The rules a job lives by. None means: as the queue says, and for a queue: the default named here.

    Spans are given as seconds or timedelta, and are seconds when read.
    """

    retry_limit: int | None
    """How often a failed job is tried again: 0 to 1000, default 2."""
    retry_delay: float | None
    """Pause before a retry: 0 s to 7 days, default 1 s."""
    retry_backoff: bool | None
    """Whether the pause doubles with each retry, with jitter. Default True."""
    retry_delay_max: float | None
    """Upper bound of a pause that doubles: 0 s to 7 days, default 1 hour."""
    expire_in: float | None
    """How long one run may take: 1 s to 7 days, default 15 minutes. `Job.extend` moves it."""
    retention: float | None
    """How long a finished job is kept, exact to the day: 0 s to 3650 days, default 7 days."""
    dead_letter: str | None
    """The queue in which a job that failed for good is published anew; empty for a queue: none any more."""

    def __init__(
        self,
        *,
        retry_limit: int | None = None,
        retry_delay: Seconds | None = None,
        retry_backoff: bool | None = None,
        retry_delay_max: Seconds | None = None,
        expire_in: Seconds | None = None,
        retention: Seconds | None = None,
        dead_letter: str | None = None,
    ) -> None:
        def assign(name: str, value: float | bool | str | None) -> None:
            object.__setattr__(self, name, value)

        assign("retry_limit", retry_limit)
        assign("retry_backoff", retry_backoff)
        assign("dead_letter", dead_letter)
        spans = {
            "retry_delay": retry_delay,
            "retry_delay_max": retry_delay_max,
            "expire_in": expire_in,
            "retention": retention,
        }
        for name, span in spans.items():
            assign(name, None if span is None else in_seconds(span))


@dataclass(frozen=True, init=False)
class NewJob:
    """A job to be published. Its id is made with it, so publishing the same NewJob again is safe."""

    data: Any
    """The payload: what `json.dumps` takes, at most 64 KiB as JSON or what the queue allows."""
    id: str | None = None
    """UUID. None: one of version 7 is made at once, and stands here afterwards."""
    priority: int = 0
    """Higher is delivered first: -32768 to 32767."""
    start_after: datetime | None = None
    """Not before this point in time (with a time zone), compared with the database's clock."""
    start_in: Seconds | None = None
    """Not before this pause from now. Either this or `start_after`."""
    headers: Mapping[str, str] | None = None
    """Carried unread, such as `traceparent`: at most 20, values up to 1,000 characters."""
    options: JobOptions | None = None
    """What differs from the queue's options."""
    key: str | None = None
    group: Group | str | None = None
    throttle: Seconds | None = None
    debounce: Seconds | None = None
    unique_for: Seconds | None = None
    """These five: see JobLabels."""

    def __init__(
        self,
        data: Any,
        id: str | None = None,  # noqa: A002 - what everybody calls it
        priority: int = 0,
        start_after: datetime | None = None,
        start_in: Seconds | None = None,
        headers: Mapping[str, str] | None = None,
        options: JobOptions | None = None,
        **labels: Unpack[JobLabels],
    ) -> None:
        # Setting a frozen field is dear, and most jobs say no more than their data: the rest is read from the class.
        assign = object.__setattr__
        assign(self, "data", data)
        assign(self, "id", new_job_id() if id is None else id)
        if priority != 0:
            assign(self, "priority", priority)
        if start_after is not None:
            assign(self, "start_after", start_after)
        if start_in is not None:
            assign(self, "start_in", start_in)
        if headers is not None:
            assign(self, "headers", headers)
        if options is not None:
            assign(self, "options", options)
        if labels:
            self._label(**labels)

    def _label(self, **labels: object) -> None:
        for name, value in labels.items():
            if name not in JobLabels.__optional_keys__:
                raise TypeError(f"a job has no {name!r}")
            if value is not None:
                object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Published:
    """What became of one published job."""

    job_id: str
    """The id under which the work is stored: its own, or that of the job that stands in its way."""
    created: bool
    """Whether this call stored it. After a repeated call False is normal: the first one did."""
    reason: NotCreatedReason = NotCreatedReason.NONE
    """Why not, if it did not."""
    met_job_id: str = ""
    """The job that stands in its way; empty if this one was stored."""
    data_differs: bool = False
    """Whether the job that was there has another payload: most likely an id used twice by mistake."""


@dataclass(frozen=True)
class Progress:
    """What a handler last said of its own work."""

    fraction: float | None = None
    """Share of the work that is done, 0 to 1; None if the handler cannot tell."""
    note: str = ""
    """A line for people."""


@dataclass(frozen=True)
class JobError:
    """One run that failed."""

    attempt: int
    """Which delivery failed, counted from 1."""
    time: datetime
    """When, by the database's clock."""
    type: str
    """An exception's class name, `EXPIRED` (time limit), `LOST` (its worker was lost), or what the worker sent."""
    message: str
    """What a person should read."""
    trace: str
    """A stack trace or other detail."""
    worker: str
    """The worker that ran it."""
    started_at: datetime | None = None
    """When the run was delivered; None if there was none, as in `WAITED_TOO_LONG`."""


@dataclass(frozen=True)
class JobOrigin:
    """The job that a dead letter was made of. A redriven job keeps the origin of its dead letter."""

    queue: str
    """The queue in which it failed."""
    job_id: str
    """Its id there."""
    created_at: datetime
    failed_at: datetime
    attempts: int
    """How often it was delivered."""
    last_error: JobError | None
    """What its last run failed with; on a delivered job without its trace."""
    first_queue: str = ""
    """If that job was a dead letter, or redriven: the queue of the first one that failed."""
    first_job_id: str = ""
    redrives: int = 0
    """How often it was redriven."""


@dataclass(frozen=True)
class JobInfo:
    """One job as it was stored and as it stood when the server answered."""

    queue: str
    id: str
    state: JobState
    data: Any
    """The payload, decoded."""
    headers: Mapping[str, str]
    priority: int
    options: JobOptions
    """The rules in force, all of them set."""
    attempt: int
    """Deliveries so far, the running one included."""
    retry_count: int
    """Retries used up by failures and time limits, of `options.retry_limit`."""
    loss_count: int
    """How often it was lost together with its worker; at 5 it is failed as poison."""
    release_count: int
    """How often a worker gave it back."""
    progress: Progress | None
    """What the current or the last run said; None if nothing."""
    output: Any
    """What the handler returned, decoded; None if nothing."""
    errors: tuple[JobError, ...]
    """The failed runs, oldest first, at most 10."""
    created_at: datetime
    start_after: datetime
    """Not delivered before this time."""
    started_at: datetime | None
    """When the current or the last run was delivered; None before the first."""
    finished_at: datetime | None
    """When it completed, failed or was cancelled; None before."""
    worker: str
    """The worker that holds it or held it last; empty before the first delivery."""
    session_id: str
    """The session that holds it; empty unless active."""
    cancel_requested: bool
    """Whether a running job was told to stop and has not settled yet."""
    revision: str
    """Changes whenever state, attempt or progress change."""
    checkpoint: Any = None
    """What its runs left for the next one, decoded; None if nothing."""
    key: str = ""
    """Its key, as published; empty if it has none."""
    group: Group | None = None
    """Its group, as published."""
    waits_for: str = ""
    """What a blocked job waits for: `key` or `group`, and which one. Empty otherwise."""
    origin: JobOrigin | None = None
    """Where it comes from, if it is a dead letter or was redriven."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self.state.finished


@dataclass(frozen=True)
class QueueCounts:
    """The jobs of a queue that are not finished, and those that failed. A number above `exact_up_to` is an estimate."""

    ready: int
    """Could be delivered now."""
    scheduled: int
    """Wait for a time to come."""
    active: int
    """Are with a worker."""
    blocked: int = 0
    """Wait for others of their key or group."""
    failed: int = 0
    """Failed and kept still."""
    exact_up_to: int = 0
    oldest_ready_age: float | None = None
    """For how many seconds the oldest of those first in line at each priority has been waiting; None if none is."""


@dataclass(frozen=True)
class QueueInfo:
    """A queue and the defaults for its jobs."""

    name: str
    options: JobOptions
    """What holds for jobs that do not say otherwise, all of it set."""
    max_data_bytes: int
    """The largest payload and output."""
    created_at: datetime
    updated_at: datetime
    """When its settings changed last."""
    counts: QueueCounts | None = None
    """Its live jobs; None unless the call counts them (get_queue, list_queues)."""
    max_depth: int = 0
    """How many of its jobs may wait; 0: any number."""
    policy: QueuePolicy = QueuePolicy.STANDARD
    """How many jobs of a key it takes and runs."""
    limits: QueueLimits = field(default_factory=QueueLimits)
    """How many of its jobs may run."""
    fair: bool = False
    """Whether its groups take turns."""
    waiting_retention: float | None = None
    """For how long a job may wait before it is cancelled, in seconds; None: forever."""
    paused: bool = False
    """Whether none of its jobs starts any more."""
    created: bool = field(default=False, compare=False)
    """Whether the create_queue call that returned this made the queue."""


@dataclass(frozen=True)
class Cancelled:
    """What became of one job of a cancel_jobs call."""

    job_id: str
    status: CancelStatus
