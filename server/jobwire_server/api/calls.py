"""The call under way, as its log line and the metrics will tell it."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

import structlog

_current: ContextVar[Call] = ContextVar("jobwire_call")


class CallObserver(Protocol):
    """Is told of every call; the metrics are one."""

    def started(self, method: str) -> None:
        """A call of `method` (`Service/Method`) has begun."""

    def finished(self, method: str, code: str, seconds: float) -> None:
        """It has ended with `code` after so long."""


@dataclass(slots=True)
class Call:
    """One RPC from its first to its last moment."""

    method: str
    """Package, service and method, without a leading slash."""
    request_id: str
    peer: str
    quiet: bool = False
    """Whether its line is for debugging only, as with probes and signs of life, unless something goes wrong."""
    started: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """Service and method, without the package."""
        service, _, method = self.method.rpartition("/")
        return f"{service.rpartition('.')[2]}/{method}"

    @property
    def seconds(self) -> float:
        """For how long it has been going on."""
        return time.monotonic() - self.started

    def note(self, **facts: object) -> None:
        """Adds facts to this call's log line, and to what is logged until then."""
        structlog.contextvars.bind_contextvars(**facts)


def begin(call: Call) -> None:
    """Makes `call` the one under way in this task."""
    _current.set(call)
    structlog.contextvars.clear_contextvars()
    call.note(request_id=call.request_id, rpc=call.name)


def this_call() -> Call:
    """The call under way in this task."""
    return _current.get()
