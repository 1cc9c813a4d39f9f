"""Ids that are the same in every run, and short names for them: j7 is a job, s2 a session, c4 a claim, r1 a replica.

Their order is not that in which they are made, so that locks, which follow ids, are not taken in the order of events.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from jobwire_server.domain.handles import Handle


def made(kind: str, number: int) -> UUID:
    """The id of the `number`th thing of a kind, which is a letter."""
    return UUID(int=(number * 2_654_435_761 % 2**32) << 96 | ord(kind) << 32 | number)


def name(value: UUID | None) -> str:
    """The short name."""
    return "-" if value is None else f"{chr(value.int >> 32 & 0xFF)}{value.int & 0xFFFFFFFF}"


def names(values: Iterable[UUID]) -> str:
    """The short names, one after the other."""
    return " ".join(map(name, values)) or "none"


def handle_name(handle: Handle) -> str:
    """A delivery: its job, its claim and its place there."""
    return f"{handle.queue}/{name(handle.job_id)}@{name(handle.token)}.{handle.place}"
