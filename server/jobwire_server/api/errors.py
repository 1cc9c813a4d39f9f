"""Our errors as gRPC statuses: one table, and the details that `google.rpc` has for them.

A status travels in HTTP headers, for which gRPC allows a few kilobytes: texts are cut, and few violations reported.
"""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from jobwire_server.api.answers import duration
from jobwire_server.api.fields import cut_bytes
from jobwire_server.domain import errors

DOMAIN = "jobwire"

_CODES: dict[type[errors.JobwireError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TooMuchToRead: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.SessionTakenOver: grpc.StatusCode.ABORTED,
    errors.LockTimeout: grpc.StatusCode.ABORTED,
    errors.TooManySessions: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Draining: grpc.StatusCode.UNAVAILABLE,
    errors.DatabaseUnavailable: grpc.StatusCode.UNAVAILABLE,
}
_MESSAGE_BYTES = 600
_PATH_BYTES = 300
_VIOLATIONS = 3


def code_of(error: errors.JobwireError) -> grpc.StatusCode:
    """The status code of an error; INTERNAL if the table forgot it."""
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)


def status_of(error: errors.JobwireError) -> Status:
    """An error as clients read it."""
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, errors.InvalidArgument):
        details.append(
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(
                        field=cut_bytes(broken.field, _PATH_BYTES), description=cut_bytes(broken.rule, _MESSAGE_BYTES)
                    )
                    for broken in error.violations[:_VIOLATIONS]
                ]
            )
        )
    if isinstance(error, errors.Refused):
        details.append(RetryInfo(retry_delay=duration(round(error.retry_after * 1_000))))
    return _status(code_of(error), error.message, details)


def internal_status(request_id: str) -> Status:
    """A bug of ours as clients read it: nothing but the id under which the log has the rest."""
    info = ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"request_id": request_id})
    return _status(grpc.StatusCode.INTERNAL, f"internal error, request id {request_id}; report it with this id", [info])


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> Status:
    number: int = code.value[0]
    status = Status(code=number, message=cut_bytes(message, _MESSAGE_BYTES))
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
