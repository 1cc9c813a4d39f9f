"""Taking jobs for sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import Delivery

from . import arrays
from .database import Database, Row

LOWEST = -(2**31)
HIGHEST = 2**31 - 1
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


async def claim_suspect(database: Database, replica: UUID, queue: str, want: Want) -> list[Claimed]:
    """Takes the first suspect job of `queue`, if there is one."""
    rows = await database.once(
        "claim_suspect",
        {"replica": replica, "queue": queue, "session": want.session_id, "epoch": want.epoch, "token": want.token},
    )
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
        row.checkpoint,
    )
    return Claimed(row.rank, row.seq, delivery)


async def ready_queues(database: Database, queues: Sequence[str]) -> dict[str, tuple[bool, bool]]:
    """For each queue whether it has ready tickets, and whether it has suspects."""
    rows = await database.once("have_ready", {"queues": arrays.texts(queues)})
    return {row.name: (row.ready, row.suspect) for row in rows}
