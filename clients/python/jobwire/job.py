"""The job that a handler gets, and the link over which it speaks to the worker while it runs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from jobwire.convert import origin_from
from jobwire.model import JobOrigin, Progress
from jobwire.outcome import Outcome, completed, raised
from jobwire.signals import JobCancelled, ReleaseJob
from jobwire.v1.queue_service_pb2 import Delivery
from jobwire.wire import (
    MAX_CHECKPOINT_BYTES,
    Seconds,
    clean_text,
    from_duration,
    from_json,
    from_timestamp,
    in_seconds,
    to_json,
)

_SHORTEST_EXTENSION = 1.0
_LONGEST_EXTENSION = 7 * 24 * 3600.0

_Kind = TypeVar("_Kind", bound="_DeliveredJob")


class Link(Protocol):
    """How a running job reaches its worker; safe to use from any thread."""

    @property
    def cancelled(self) -> bool:
        """Whether the run is to stop."""

    def report(self, progress: Progress, checkpoint: str | None = None) -> None:
        """Say how far the job is, and with JSON text what the next attempt is to know; the latest word wins."""

    def extend(self, seconds: float) -> Awaitable[None]:
        """Ask for a new time limit at once; awaiting it waits for the answer."""


class MemberLink(Link, Protocol):
    """How one job of a batch reaches its worker."""

    @property
    def settled(self) -> bool:
        """Whether it has been said what became of the job."""

    def settle(self, outcome: Outcome) -> None:
        """Say it; what is said later does not count."""


class Done:
    """An awaitable that is done already."""

    def __await__(self) -> Generator[None]:
        return
        yield


class Unlinked:
    """The link of a Job made by hand, for trying out a handler: it says nothing to anybody."""

    cancelled = False
    settled = False

    def report(self, progress: Progress, checkpoint: str | None = None) -> None:
        """Forget it."""

    def settle(self, outcome: Outcome) -> None:  # noqa: ARG002
        """Remember that much."""
        self.settled = True

    def extend(self, seconds: float) -> Awaitable[None]:  # noqa: ARG002
        """Be done."""
        return Done()


@dataclass(frozen=True, eq=False)
class Job:
    """One delivery of a job. To try out a handler, make one by hand: `Job(data={"file_key": "a.xlsx"})`."""

    data: Any = None
    """The payload, decoded."""
    queue: str = ""
    id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    attempt: int = 1
    """Which delivery of the job this is, counted from 1. It only grows, so it may fence writes to other systems."""
    retry_count: int = 0
    """Retries used up so far."""
    retry_limit: int = 0
    """Retries allowed."""
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When the job was stored."""
    expire_in: float = 900.0
    """How long this run may take from its delivery, in seconds, unless `extend` moves the limit."""
    checkpoint: Any = None
    """What the last attempt left for this one (`progress(…, checkpoint=…)`), decoded; None if nothing."""
    origin: JobOrigin | None = None
    """Where it comes from, if it is a dead letter or was redriven."""
    link: Link = field(default_factory=Unlinked, repr=False)
    """How the job reaches its worker; not for handlers."""

    async def progress(self, fraction: float | None, note: str = "", *, checkpoint: Any = None) -> None:
        """Say how far the job is. Cheap: call it as often as you like, the latest word is sent a few times a second.

        Args:
            fraction: share of the work that is done, 0 to 1 (what is outside is clamped); None if unknown.
            note: a line for people, at most 1,000 characters; longer ones are cut.
            checkpoint: what the next attempt is to know should this one not finish: what `json.dumps` takes, at most
                64 KiB as JSON. It is kept until another one replaces it; None leaves it as it is. What is said before
                the run fails or is given back is there when that is.
        """
        self.report(fraction, note, checkpoint=checkpoint)
        # A handler that only computes lets its neighbours run, and its own cancellation arrive.
        await asyncio.sleep(0)

    def report(self, fraction: float | None, note: str = "", *, checkpoint: Any = None) -> None:
        """Do the same from a blocking handler. Safe from any thread of the handler; does not wait for the network."""
        if fraction is not None:
            fraction = None if math.isnan(fraction) else min(1.0, max(0.0, float(fraction)))
        text = None if checkpoint is None else to_json(checkpoint, MAX_CHECKPOINT_BYTES)
        self.link.report(Progress(fraction, clean_text(note, 1000)), text)

    def extend(self, seconds: Seconds) -> Awaitable[None]:
        """Move the run's time limit to `seconds` (1 s to 7 days) from now.

        In an async handler `await` it, to go on when the server has answered; if the lease is over, the handler is
        cancelled. In a blocking handler just call it: it is sent at once.
        """
        span = in_seconds(seconds)
        if not _SHORTEST_EXTENSION <= span <= _LONGEST_EXTENSION:
            raise ValueError(f"extend({span:g} s): a time limit is 1 s to 7 days from now")
        return self.link.extend(span)

    @property
    def cancelled(self) -> bool:
        """Whether the run is to stop: the job was cancelled, its time is over, its lease lost, or the worker stops."""
        return self.link.cancelled

    def check(self) -> None:
        """For blocking handlers: raises JobCancelled if the run is to stop. Call it between steps."""
        if self.cancelled:
            raise JobCancelled


@dataclass(frozen=True, eq=False)
class BatchJob(Job):
    """One job of a batch, which is settled on its own: the first of `complete`, `fail` and `release` counts."""

    link: MemberLink = field(default_factory=Unlinked, repr=False)
    """How the job reaches its worker; not for handlers."""

    @property
    def settled(self) -> bool:
        """Whether the handler has said what became of the job."""
        return self.link.settled

    def complete(self, output: Any = None) -> None:
        """Say that the job is done, with an output as a handler of single jobs would return it."""
        self.link.settle(completed(output))

    def fail(self, error: BaseException) -> None:
        """Say that the run failed, as if a handler of single jobs had raised this: FailForGood and RetryIn too."""
        self.link.settle(raised(error, told_to_stop=self.cancelled))

    def release(self, delay: Seconds | None = None) -> None:
        """Give the job back untouched, as ReleaseJob does."""
        self.fail(ReleaseJob(delay))


class _Decoded:
    """A field of a delivered job, decoded when a handler first looks at it: most handlers look at one or two."""

    def __init__(self, decode: Callable[[Delivery], Any]) -> None:
        self._decode = decode

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, job: _DeliveredJob, owner: type) -> Any:
        fields = vars(job)
        value = fields[self._name] = self._decode(fields["delivery"])
        return value


def _decoded(decode: Callable[[Delivery], Any]) -> Any:
    """A _Decoded in the place of the field's value."""
    return _Decoded(decode)


class _DeliveredJob(Job):
    """A Job whose fields are read from its delivery on demand; what was read stays, as in any other Job."""

    __qualname__ = "Job"  # what its repr begins with

    data = _decoded(lambda delivery: from_json(delivery.data))
    queue = _decoded(lambda delivery: delivery.queue)
    id = _decoded(lambda delivery: delivery.job_id)
    headers = _decoded(lambda delivery: dict(delivery.headers))
    priority = _decoded(lambda delivery: delivery.priority)
    attempt = _decoded(lambda delivery: delivery.attempt)
    retry_count = _decoded(lambda delivery: delivery.retry_count)
    retry_limit = _decoded(lambda delivery: delivery.retry_limit)
    created_at = _decoded(lambda delivery: from_timestamp(delivery.create_time))
    expire_in = _decoded(lambda delivery: from_duration(delivery.expire_in))
    origin = _decoded(lambda delivery: origin_from(delivery.origin) if delivery.HasField("origin") else None)
    checkpoint = _decoded(lambda delivery: from_json(delivery.checkpoint))


class _DeliveredBatchJob(_DeliveredJob, BatchJob):
    __qualname__ = "BatchJob"


def job_from(delivery: Delivery, link: Link) -> Job:
    """The job of a delivery."""
    return _delivered(_DeliveredJob, delivery, link)


def batch_job_from(delivery: Delivery, link: MemberLink) -> BatchJob:
    """The job of a delivery in a batch."""
    return _delivered(_DeliveredBatchJob, delivery, link)


def _delivered(kind: type[_Kind], delivery: Delivery, link: Link) -> _Kind:
    job = object.__new__(kind)
    fields = vars(job)
    fields["delivery"] = delivery
    fields["link"] = link
    return job
