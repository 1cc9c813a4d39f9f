"""Taking jobs for sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import Delivery
from jobwire_server.domain.shares import EVERY_RANK, Ranks

from . import arrays
from .database import Database, Row

LOWEST, HIGHEST = EVERY_RANK
CLAIM_SIZE = 200
"""The largest group of jobs in one claim row, which so stays within a page."""


@dataclass(frozen=True, slots=True)
class Want:
    """A session's part in a claim: the token its group will have, and how many jobs it may take, at most CLAIM_SIZE.

    `before`: how many the session takes by other tokens first, where it may have several.
    """

    session_id: UUID
    epoch: int
    token: UUID
    count: int
    before: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the claim order that may hold tickets: after (from_rank, from_seq), below to_rank."""

    from_rank: int = LOWEST
    from_seq: int = -1
    to_rank: int = HIGHEST


EVERYTHING = (Span(),)


def within(spans: Sequence[Span], ranks: Ranks) -> Sequence[Span]:
    """What of the spans lies in these ranks."""
    parts = [
        Span(*max((span.from_rank, span.from_seq), (ranks.low, -1)), min(span.to_rank, ranks.high + 1))
        for span in spans
    ]
    return [part for part in parts if part.from_rank < part.to_rank]


class Claimed(NamedTuple):
    """A job taken, and its place in the claim order."""

    rank: int
    seq: int
    delivery: Delivery


async def claim(
    database: Database, replica: UUID, queue: str, wants: Sequence[Want], spans: Sequence[Span] = EVERYTHING
) -> list[Claimed]:
    """Takes the first ready jobs of `queue`, in order, dealt out to the sessions in turn.

    Sessions of another epoch get none.
    """
    rows = await database.once("claim", claim_params(replica, queue, wants, spans))
    name, tokens = queue.encode(), [want.token.bytes for want in wants]
    return [_claimed(name, tokens, row, suspect=False) for row in rows]


def claim_params(replica: UUID, queue: str, wants: Sequence[Want], spans: Sequence[Span]) -> dict[str, Any]:
    """Who takes part in a claim, and where it looks, as parameters of a statement."""
    return {
        "replica": replica,
        "queue": queue,
        "sessions": arrays.uuids(want.session_id for want in wants),
        "epochs": arrays.int8s(want.epoch for want in wants),
        "tokens": arrays.uuids(want.token for want in wants),
        "wants": arrays.int4s(want.count for want in wants),
        "from_ranks": arrays.int4s(span.from_rank for span in spans),
        "from_seqs": arrays.int8s(span.from_seq for span in spans),
        "to_ranks": arrays.int4s(span.to_rank for span in spans),
    }


async def claim_suspect(
    database: Database, replica: UUID, queue: str, want: Want, ranks: Ranks = EVERY_RANK
) -> list[Claimed]:
    """Takes the first suspect job of `queue` in these ranks, if there is one."""
    who = {"replica": replica, "session": want.session_id, "epoch": want.epoch, "token": want.token}
    rows = await database.once("claim_suspect", who | _where(queue, ranks))
    return [_claimed(queue.encode(), [want.token.bytes], row, suspect=True) for row in rows]


def _claimed(queue: bytes, tokens: Sequence[bytes], row: Row, *, suspect: bool) -> Claimed:
    delivery = Delivery(
        Handle.joined(queue, row.id, tokens[row.want - 1], row.place),
        row.data,
        row.headers,
        -row.rank,
        row.attempt,
        row.retry_count,
        row.retry_limit,
        row.created_at,
        row.expire_ms,
        suspect,
    )
    return Claimed(row.rank, row.seq, delivery)


async def waiting(database: Database, queue: str, ranks: Ranks = EVERY_RANK) -> tuple[bool, bool]:
    """Whether a queue has ready tickets in these ranks, and whether it has suspects."""
    [row] = await database.once("have_ready", _where(queue, ranks))
    return row.ready, row.suspect


def _where(queue: str, ranks: Ranks) -> dict[str, Any]:
    return {"queue": queue, "low": ranks.low, "high": ranks.high}
