"""Errors as statuses: every error has its code, its reason and the details it calls for, and fits into HTTP headers."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]

from jobwire_server.api.errors import code_of, internal_status, status_of
from jobwire_server.domain import errors

CASES = [
    (errors.InvalidArgument(errors.FieldViolation("queue", "must be")), "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    (errors.DataTooLarge("jobs[0].data", 70_000, 65_536), "INVALID_ARGUMENT", "DATA_TOO_LARGE"),
    (errors.UnknownField("jobs[0]", 77), "INVALID_ARGUMENT", "UNKNOWN_FIELD"),
    (errors.QueueNotFound("mail"), "NOT_FOUND", "QUEUE_NOT_FOUND"),
    (errors.JobNotFound("mail", "1"), "NOT_FOUND", "JOB_NOT_FOUND"),
    (errors.ScheduleNotFound("nightly"), "NOT_FOUND", "SCHEDULE_NOT_FOUND"),
    (errors.Unauthenticated("bring a token"), "UNAUTHENTICATED", "UNAUTHENTICATED"),
    (errors.SessionLost("1"), "NOT_FOUND", "SESSION_LOST"),
    (errors.SessionTakenOver("1"), "ABORTED", "SESSION_TAKEN_OVER"),
    (errors.LockTimeout(), "ABORTED", "LOCK_TIMEOUT"),
    (errors.TooManySessions(3), "RESOURCE_EXHAUSTED", "TOO_MANY_SESSIONS"),
    (errors.Overloaded(0.3), "RESOURCE_EXHAUSTED", "OVERLOADED"),
    (errors.QueueFull("mail", 5), "RESOURCE_EXHAUSTED", "QUEUE_FULL"),
    (errors.NoJobWaits("mail", "key k"), "NOT_FOUND", "JOB_NOT_FOUND"),
    (errors.ConfirmationRequired("a filter"), "FAILED_PRECONDITION", "CONFIRMATION_REQUIRED"),
    (errors.QueueNotEmpty("mail"), "FAILED_PRECONDITION", "QUEUE_NOT_EMPTY"),
    (errors.QueueReferenced("mail", "schedule x"), "FAILED_PRECONDITION", "QUEUE_REFERENCED"),
    (errors.TooMuchToRead(), "RESOURCE_EXHAUSTED", "TOO_MUCH_TO_READ"),
    (errors.QueueBusy("work", "jobs run"), "FAILED_PRECONDITION", "QUEUE_BUSY"),
    (errors.Draining(), "UNAVAILABLE", "DRAINING"),
    (errors.DatabaseUnavailable(), "UNAVAILABLE", "DATABASE_UNAVAILABLE"),
]


def kinds(base: type[errors.JobwireError]) -> Iterator[type[errors.JobwireError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_no_error_is_forgotten() -> None:
    bases = {errors.NotFound, errors.Refused, errors.FailedPrecondition}
    assert {type(error) for error, _, _ in CASES} == set(kinds(errors.JobwireError)) - bases


@pytest.mark.parametrize(("error", "code", "reason"), CASES, ids=[reason for _, _, reason in CASES])
def test_an_error_has_code_reason_and_details(error: errors.JobwireError, code: str, reason: str) -> None:
    status = status_of(error)
    assert code_of(error).name == code
    assert status.code == code_of(error).value[0]
    assert status.message == error.message
    info, *rest = status.details
    said = ErrorInfo()
    assert info.Unpack(said)
    assert (said.domain, said.reason, dict(said.metadata)) == ("jobwire", reason, {})
    if isinstance(error, errors.InvalidArgument):
        request = BadRequest()
        assert rest[0].Unpack(request)
        assert [(each.field, each.description) for each in request.field_violations] == [
            (violation.field, violation.rule) for violation in error.violations
        ]
    elif isinstance(error, errors.Refused):
        retry = RetryInfo()
        assert rest[0].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() == error.retry_after * 1_000
    else:
        assert rest == []


def test_an_error_outside_the_table_is_internal() -> None:
    assert code_of(errors.JobwireError("?")) is grpc.StatusCode.INTERNAL


def test_an_internal_error_says_nothing_but_its_request_id() -> None:
    status = internal_status("r-1")
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, dict(info.metadata)) == ("INTERNAL", {"request_id": "r-1"})
    assert status.message == "internal error, request id r-1; report it with this id"


def test_the_longest_errors_fit_into_headers() -> None:
    smile = "\U0001f600"
    violations = [errors.FieldViolation(smile * 500, smile * 5_000) for _ in range(1_000)]
    status = status_of(errors.InvalidArgument(*violations))
    # The details travel in base64, the message percent-encoded; from 8 KiB on gRPC begins to refuse headers.
    assert status.ByteSize() * 4 / 3 + len(status.message.encode()) * 3 < 8_000
