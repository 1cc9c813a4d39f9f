"""The call under way, as its log line and the metrics will tell it."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from jobwire_server import logs

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
    caller: str = ""
    """The name of the token that it brought, if the server wants one."""
    started: float = field(default_factory=time.monotonic)
    name: str = field(init=False)
    """Service and method, without the package."""
    facts: dict[str, object] = field(init=False)
    """What its log line will tell of it, and what is logged until then."""

    def __post_init__(self) -> None:
        self.name = _name(self.method)
        self.facts = {"request_id": self.request_id, "rpc": self.name}

    @property
    def seconds(self) -> float:
        """For how long it has been going on."""
        return time.monotonic() - self.started

    def note(self, **facts: object) -> None:
        """Adds to its facts."""
        self.facts.update(facts)


def begin(call: Call) -> None:
    """Makes `call` the one under way in this task."""
    _current.set(call)
    logs.context.set(call.facts)


@cache
def _name(method: str) -> str:
    service, _, name = method.rpartition("/")
    return f"{service.rpartition('.')[2]}/{name}"


def this_call() -> Call:
    """The call under way in this task."""
    return _current.get()
