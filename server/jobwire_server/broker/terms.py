"""The numbers a broker runs by, and what it counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID, uuid4


@dataclass(frozen=True, slots=True)
class BrokerTerms:
    """Settings of one replica. Durations in milliseconds; docs/protocol.md says what each is for."""

    replica: UUID = field(default_factory=uuid4)
    create_queues: bool = True
    migrate: bool = True
    owner_grace_ms: int = 60_000
    drain_grace_ms: int = 300_000
    cancel_grace_ms: int = 30_000
    renew_interval_ms: int = 5_000
    poll_interval_ms: int = 1_000
    max_sessions: int = 2_000
    max_publishing_bytes: int = 32 * 1024 * 1024
    publishing_connections: int = 2


class Stats(Counter[str]):
    """What has happened since the start, by name, such as `published` or `acked.complete`."""


@dataclass(frozen=True, slots=True)
class BrokerStats:
    """A look at a broker: what it holds now, and what has happened since its start."""

    sessions: int
    streams: int
    in_flight: int
    waits: int
    publishing_bytes: int
    behind_pooler: bool
    counters: dict[str, int]
