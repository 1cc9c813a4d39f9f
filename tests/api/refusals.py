"""A refused call as a client reads it: status, `google.rpc` details, request id."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an error says. `retry_after` is in seconds, None if it does not say to repeat the call."""

    code: grpc.StatusCode
    message: str
    reason: str
    violations: list[tuple[str, str]]
    """Field path and rule."""
    retry_after: float | None
    request_id: str
    metadata: dict[str, str]
    raw: str = field(repr=False)
    """All that reached the client, in one text."""

    @property
    def place(self) -> str:
        """The path of the one field that is refused."""
        [(place, _)] = self.violations
        return place


async def refused(call: Awaitable[object]) -> Refusal:
    """How the call is refused; fails if it is not, or if the error lacks what every error of ours has."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read(caught.value)


def read(error: grpc.aio.AioRpcError) -> Refusal:
    """What an error of ours says."""
    status = rpc_status.from_call(error)
    assert status is not None, f"no google.rpc.Status: {error}"
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    found = {kind.DESCRIPTOR.name for kind in (info, bad, retry) for detail in status.details if detail.Unpack(kind)}
    assert "ErrorInfo" in found and info.domain == "jobwire", status
    trailing = error.trailing_metadata() or ()
    [request_id] = [value for name, value in trailing if name == "x-request-id"]
    return Refusal(
        error.code(),
        error.details() or "",
        info.reason,
        [(broken.field, broken.description) for broken in bad.field_violations],
        retry.retry_delay.ToTimedelta().total_seconds() if "RetryInfo" in found else None,
        str(request_id),
        dict(info.metadata),
        f"{error!r} {error.debug_error_string()} {list(trailing)!r} {status}",
    )
