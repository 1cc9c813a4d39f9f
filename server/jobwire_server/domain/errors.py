"""The errors Jobwire reports on purpose.

Each says what is wrong, where, and what to do; `reason` is the stable word that clients may test. The API maps the
classes to status codes in one table. Whatever is not in this hierarchy is a bug and reaches no client.
"""

from __future__ import annotations

from dataclasses import dataclass


class JobwireError(Exception):
    """Base of all errors that a client may read."""

    reason: str = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that breaks a rule. `field` is a path such as `jobs[3].data`."""

    field: str
    rule: str


class InvalidArgument(JobwireError):
    """A request breaks a rule of the contract. Repeating it unchanged cannot succeed."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, *violations: FieldViolation) -> None:
        super().__init__("; ".join(f"{v.field}: {v.rule}" for v in violations))
        self.violations = violations


class DataTooLarge(InvalidArgument):
    """A payload or an output is larger than the queue allows."""

    reason = "DATA_TOO_LARGE"

    def __init__(self, field: str, size: int, limit: int) -> None:
        super().__init__(
            FieldViolation(
                field,
                f"is {size:,} bytes, the queue allows {limit:,};"
                " store the content elsewhere (object storage, a table) and send its key",
            )
        )


class UnknownField(InvalidArgument):
    """A request has a field that this server's release does not know.

    `at` is the path of the message that has it, empty for the request itself.
    """

    reason = "UNKNOWN_FIELD"

    def __init__(self, at: str, number: int) -> None:
        super().__init__(
            FieldViolation(
                at or "request",
                f"has a field that this server does not know, number {number}; the client is newer than the server:"
                " update the server first, or leave the field out",
            )
        )


class Unauthenticated(JobwireError):
    """The server wants a token that it knows, and the call brings none."""

    reason = "UNAUTHENTICATED"


class NotFound(JobwireError):
    """Something that a request names does not exist."""


class QueueNotFound(NotFound):
    """The queue does not exist and is not to be created on the way."""

    reason = "QUEUE_NOT_FOUND"

    def __init__(self, queue: str) -> None:
        super().__init__(
            f"queue {queue!r} does not exist;"
            f" create it with AdminService.CreateQueue or `jobwire queues create {queue}`"
        )


class JobNotFound(NotFound):
    """No live or kept job has this id."""

    reason = "JOB_NOT_FOUND"

    def __init__(self, queue: str, job_id: str) -> None:
        where = f"in queue {queue!r}" if queue else "in any queue"
        super().__init__(f"there is no job {job_id} {where}; it may have passed its retention")


class NoJobWaits(NotFound):
    """No job that could be changed waits under this id or key."""

    reason = "JOB_NOT_FOUND"

    def __init__(self, queue: str, name: str) -> None:
        super().__init__(f"no job {name} waits in queue {queue!r}; it may run or have finished")


class ScheduleNotFound(NotFound):
    """There is no schedule of this name."""

    reason = "SCHEDULE_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"schedule {name!r} does not exist; AdminService.ListSchedules or `jobwire schedules` lists all"
        )


class SessionLost(NotFound):
    """The session is over; what it held has been given back."""

    reason = "SESSION_LOST"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id} is over; cancel what runs under it and subscribe anew without `resume`")


class FailedPrecondition(JobwireError):
    """What is asked for cannot be done as things stand; the message says what to do first."""


class ConfirmationRequired(FailedPrecondition):
    """Jobs would be changed by a filter, and nobody has said that so many are meant."""

    reason = "CONFIRMATION_REQUIRED"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}; make the call with `dry_run` first, until it gives a `confirmation`, and pass that with the same"
            " filter and change; or state a `limit`"
        )


class QueueNotEmpty(FailedPrecondition):
    """The queue to be deleted has live jobs."""

    reason = "QUEUE_NOT_EMPTY"

    def __init__(self, queue: str) -> None:
        super().__init__(
            f"queue {queue!r} has jobs that wait or run; let them finish, or purge the queue and cancel what runs,"
            " or delete it with `force`, which deletes them too"
        )


class QueueReferenced(FailedPrecondition):
    """Something refers to the queue to be deleted."""

    reason = "QUEUE_REFERENCED"

    def __init__(self, queue: str, by: str) -> None:
        super().__init__(f"queue {queue!r} is in use by {by}; remove that first, or delete the queue with `force`")


class QueueBusy(FailedPrecondition):
    """The queue's jobs stand in the way of a change."""

    reason = "QUEUE_BUSY"

    def __init__(self, queue: str, why: str) -> None:
        super().__init__(f"queue {queue!r} cannot be changed like this now: {why}")


class TooMuchToRead(JobwireError):
    """One look of a search took longer than such reads may."""

    reason = "TOO_MUCH_TO_READ"

    def __init__(self) -> None:
        super().__init__(
            "there is too much to read for this filter; narrow it: name the queue, a key, or states, and compare"
            " payloads (`data_contains`) only with those beside it"
        )


class SessionTakenOver(JobwireError):
    """The session goes on in a newer Subscribe call."""

    reason = "SESSION_TAKEN_OVER"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id} goes on in another Subscribe call of a higher epoch; this one is over")


class Refused(JobwireError):
    """Jobwire cannot do it now; the same call may succeed after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManySessions(Refused):
    """This replica serves as many sessions as it may."""

    reason = "TOO_MANY_SESSIONS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"this replica already serves {limit} sessions; subscribe at another one, or later", 5.0)


class Overloaded(Refused):
    """This replica holds as much of what is being published as it may."""

    reason = "OVERLOADED"

    def __init__(self, retry_after: float) -> None:
        super().__init__(
            "this replica is publishing as much as it can hold; nothing of this call was stored, repeat it later",
            retry_after,
        )


class QueueFull(Refused):
    """As many jobs wait in the queue as may."""

    reason = "QUEUE_FULL"

    def __init__(self, queue: str, max_depth: int) -> None:
        super().__init__(
            f"queue {queue!r} has no room for these jobs: {max_depth:,} may wait in it;"
            " nothing of this call was stored, repeat it when workers have caught up",
            1.0,
        )


class Draining(Refused):
    """This replica is about to stop."""

    reason = "DRAINING"

    def __init__(self) -> None:
        super().__init__(
            "this replica is about to stop; repeat the call, which reaches another one or this one after its restart",
            1.0,
        )


class DatabaseUnavailable(Refused):
    """PostgreSQL cannot be reached or cannot answer in time."""

    reason = "DATABASE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("the database cannot be reached or does not answer in time; repeat the call", 1.0)


class LockTimeout(Refused):
    """Another transaction holds what the call needs."""

    reason = "LOCK_TIMEOUT"

    def __init__(self) -> None:
        super().__init__("another transaction holds a job or key that this call needs; repeat the call", 0.5)
