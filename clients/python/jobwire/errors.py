"""What can go wrong, as one hierarchy with fields.

Every failed call raises a JobwireError whose message says what to do. The classes follow gRPC's status codes, with
one of its own where a caller acts otherwise; `reason` is the finer word that the server gave, such as QUEUE_NOT_FOUND.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from grpc_status import rpc_status

from jobwire.wire import from_duration


@dataclass(frozen=True)
class FieldViolation:
    """A field of a request that breaks a rule."""

    field: str
    """Its path, such as `jobs[3].data`."""
    description: str
    """The rule."""


class JobwireError(Exception):
    """A call that failed; also raised as such for status codes without a class of their own."""

    default_code = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        field_violations: tuple[FieldViolation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message: str = message
        """What is wrong, where, and what to do."""
        self.code: grpc.StatusCode = code or self.default_code
        """gRPC's status code."""
        self.reason: str = reason
        """The server's finer word, empty if it gave none."""
        self.field_violations: tuple[FieldViolation, ...] = field_violations
        """Which fields of the request break which rules."""
        self.retry_after: float | None = retry_after
        """After how many seconds the server asks to repeat the call; None if it does not."""

    def __str__(self) -> str:
        return self.message


class InvalidArgument(JobwireError, ValueError):
    """A request that breaks a rule; correct the named field. Repeating it is of no use."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(JobwireError, LookupError):
    """A queue, job or session that does not exist (any more)."""

    default_code = grpc.StatusCode.NOT_FOUND


class FailedPrecondition(JobwireError):
    """What was asked for cannot be done as things stand; `reason` says why, and the message what to do first."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class QueueBusy(FailedPrecondition):
    """The queue's jobs stand in the way of a change: they are too many, or some have no key."""


class Aborted(JobwireError):
    """A call that met another one; repeat it after `retry_after`."""

    default_code = grpc.StatusCode.ABORTED


class ResourceExhausted(JobwireError):
    """A limit of the server or of a message's size was met."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Overloaded(ResourceExhausted):
    """The server is publishing as much as it can hold. Nothing of the call was stored; repeat it later."""


class QueueFull(ResourceExhausted):
    """As many jobs wait in the queue as its `max_depth` allows. Nothing of the call was stored; repeat it later."""


class Unavailable(JobwireError, ConnectionError):
    """The server cannot be reached, drains, has lost its database, or ended the call as it stopped."""

    default_code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(JobwireError, TimeoutError):
    """No answer within the timeout. Whether the call took effect is not known; repeating it is safe."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class PermissionDenied(JobwireError):
    """These credentials may not do that."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(JobwireError):
    """The server wants credentials, or does not accept these."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class Unimplemented(JobwireError):
    """The server at this address does not know the call; perhaps it is older than this client."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class InternalError(JobwireError):
    """A fault of the server; report it with the request id in the message."""

    default_code = grpc.StatusCode.INTERNAL


_CLASSES: dict[grpc.StatusCode, type[JobwireError]] = {
    cls.default_code: cls
    for cls in (
        InvalidArgument,
        NotFound,
        FailedPrecondition,
        Aborted,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        PermissionDenied,
        Unauthenticated,
        Unimplemented,
        InternalError,
    )
}
# Whoever cancels a call is told otherwise: this is how gRPC ends calls that reach a server as it stops.
_CLASSES[grpc.StatusCode.CANCELLED] = Unavailable


_REASONS: dict[str, type[JobwireError]] = {"OVERLOADED": Overloaded, "QUEUE_FULL": QueueFull, "QUEUE_BUSY": QueueBusy}


def error_from_rpc(call: grpc.RpcError, target: str) -> JobwireError:
    """Turn gRPC's error into ours; `target` is the address that was called."""
    if not isinstance(call, grpc.Call | grpc.aio.AioRpcError):
        raise TypeError(f"{call!r} is not the error of a call")
    code = call.code()
    text = call.details() or ""
    reason = ""
    violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None
    for detail in _details(call):
        if isinstance(detail, ErrorInfo):
            reason = detail.reason
        elif isinstance(detail, BadRequest):
            violations = tuple(FieldViolation(v.field, v.description) for v in detail.field_violations)
        else:
            retry_after = from_duration(detail.retry_delay)
    return (_REASONS.get(reason) or _CLASSES.get(code, JobwireError))(
        _message(code, reason, text, target),
        code=code,
        reason=reason,
        field_violations=violations,
        retry_after=retry_after,
    )


def _details(call: grpc.Call | grpc.aio.AioRpcError) -> list[ErrorInfo | BadRequest | RetryInfo]:
    try:
        status = rpc_status.from_call(call)  # type: ignore[arg-type]  # AioRpcError has all that it reads
    except ValueError:
        # Details that contradict the status: something between us and the server rewrote it.
        status = None
    found: list[ErrorInfo | BadRequest | RetryInfo] = []
    for packed in status.details if status else ():
        for kind in (ErrorInfo, BadRequest, RetryInfo):
            detail = kind()
            if packed.Is(detail.DESCRIPTOR) and packed.Unpack(detail):
                found.append(detail)
    return found


def _message(code: grpc.StatusCode, reason: str, text: str, target: str) -> str:
    """The server's own words stand; what gRPC itself says is turned into what to do."""
    if reason:
        return text or reason
    if code is grpc.StatusCode.UNAVAILABLE:
        # The innermost cause; what is left of the brackets around it is not.
        why = text.rsplit(": ", 1)[-1].rstrip("]") or "no connection"
        return f"cannot reach Jobwire at {target} ({why}): is it running there, and are address and TLS right?"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer from Jobwire at {target} in time; the call may have taken effect, and repeating it is safe"
    if code is grpc.StatusCode.CANCELLED:
        why = text or code.name
        return f"the call to Jobwire at {target} was ended ({why}); it may have taken effect, and repeating it is safe"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"the server at {target} does not know this call ({text}): is it Jobwire, and as new as this client?"
    return f"{text or code.name} (from {target})"
