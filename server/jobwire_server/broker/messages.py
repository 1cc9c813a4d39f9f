"""What goes in and out of the broker: the contract's messages as values, checked and in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import AckItem, AckResult, Delivery, StopReason
from jobwire_server.domain.shares import Share


@dataclass(frozen=True, slots=True)
class Resume:
    """Which session to go on with. `epoch` 0: the next one."""

    session_id: UUID
    epoch: int
    held: tuple[Handle, ...]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A Subscribe call's terms."""

    queues: tuple[str, ...]
    max_in_flight: int
    worker: str
    heartbeat_ms: int
    resume_grace_ms: int
    resume: Resume | None
    shares: tuple[Share, ...] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """Always the first event."""

    session_id: UUID
    epoch: int
    resumed: bool
    lost: tuple[Handle, ...]
    max_in_flight: int
    heartbeat_ms: int
    resume_grace_ms: int


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Jobs to run, and how many bytes they are, roughly."""

    deliveries: Sequence[Delivery]
    size: int = 0


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A delivery to stop."""

    handle: Handle
    reason: StopReason
    grace_ms: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Asks for a sign of life."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Asks the client to leave when it has finished what it runs."""


@dataclass(frozen=True, slots=True)
class Draining:
    """The last event of a stream that ends because this replica goes away."""

    resume_within_ms: int
    reconnect_delay_ms: int


Event = Opened | Deliveries | Cancellation | Heartbeat | Quiet | Draining


@dataclass(frozen=True, slots=True)
class Ack:
    """An Ack call."""

    session_id: UUID | None
    items: tuple[AckItem, ...]
    last_sequence: int = 0
    max_in_flight: int | None = None
    close_session: bool = False


@dataclass(frozen=True, slots=True)
class AckAnswer:
    """A result for each item, in order, and whether the named session lives."""

    results: list[AckResult]
    session_alive: bool
