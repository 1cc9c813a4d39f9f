"""Taking jobs for sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from uuid import UUID

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import Delivery
from jobwire_server.domain.shares import EVERY_RANK, Ranks

from . import arrays
from .database import Connection, Database, Row
from .reading import read_origin

LOWEST, HIGHEST = EVERY_RANK
_PLAIN, _LIMITED = 0, 1
"""How a queue is claimed: its `claim_kind`. A claim of the other kind takes nothing."""
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
    return _all_claimed(queue, wants, rows)


@dataclass(frozen=True, slots=True)
class Limited:
    """What a claim took from a queue with limits; and, if its rate kept it from more, how soon there may be more."""

    claimed: list[Claimed]
    more_in_ms: int | None = None


async def claim_limited(
    database: Database, replica: UUID, queue: str, wants: Sequence[Want], spans: Sequence[Span] = EVERYTHING
) -> Limited:
    """`claim` as far as the limits of `queue` allow, one at a time for each queue, whichever replica it is."""
    async with database.transaction() as connection:
        room, more_in_ms = await _room(database, connection, queue, wants)
        if not room:
            return Limited([], more_in_ms)
        params = claim_params(replica, queue, room, spans) | {"kind": _LIMITED}
        rows = await database.run(connection, "claim", params)
        await _note_starts(database, connection, queue, rows)
        return Limited(_all_claimed(queue, room, rows), more_in_ms if len(rows) == sum(w.count for w in room) else None)


async def _room(
    database: Database, connection: Connection, queue: str, wants: Sequence[Want]
) -> tuple[list[Want], int | None]:
    """As much of `wants` as the limits allow, and how soon more."""
    await database.run(connection, "lock_claimers", {"sessions": arrays.uuids(want.session_id for want in wants)})
    wanted = sum(want.count for want in wants)
    [row] = await database.run(connection, "claim_room", {"queue": queue, "want": wanted})
    room, allowed = row.room, []
    for place, want in enumerate(wants):
        # Dealt out as evenly as it can be: to each its part of what is left.
        count = min(want.count, -(-room // (len(wants) - place)))
        allowed += [replace(want, count=count)] if count else []
        room -= count
    return allowed, row.more_in_ms


async def _note_starts(database: Database, connection: Connection, queue: str, rows: Sequence[Row]) -> None:
    if rows:
        ids = arrays.uuids(UUID(bytes=row.id) for row in rows)
        await database.run(connection, "note_starts", {"queue": queue, "ids": ids})


def _all_claimed(queue: str, wants: Sequence[Want], rows: Sequence[Row]) -> list[Claimed]:
    name, tokens = queue.encode(), [want.token.bytes for want in wants]
    return [_claimed(name, tokens, row, suspect=False) for row in rows]


def claim_params(replica: UUID, queue: str, wants: Sequence[Want], spans: Sequence[Span]) -> dict[str, Any]:
    """Who takes part in a claim, and where it looks, as parameters of a statement."""
    return {
        "replica": replica,
        "queue": queue,
        "kind": _PLAIN,
        "sessions": arrays.uuids(want.session_id for want in wants),
        "epochs": arrays.int8s(want.epoch for want in wants),
        "tokens": arrays.uuids(want.token for want in wants),
        "wants": arrays.int4s(want.count for want in wants),
        "from_ranks": arrays.int4s(span.from_rank for span in spans),
        "from_seqs": arrays.int8s(span.from_seq for span in spans),
        "to_ranks": arrays.int4s(span.to_rank for span in spans),
    }


async def claim_suspect(
    database: Database,
    replica: UUID,
    queue: str,
    want: Want,
    ranks: Ranks = EVERY_RANK,
    *,
    limited: bool = False,
) -> list[Claimed]:
    """Takes the first suspect job of `queue` in these ranks, if there is one, and if its limits allow."""
    who = {"replica": replica, "session": want.session_id, "epoch": want.epoch, "token": want.token}
    params = who | _where(queue, ranks) | {"kind": _LIMITED if limited else _PLAIN}
    if not limited:
        rows = await database.once("claim_suspect", params)
    else:
        async with database.transaction() as connection:
            room, _ = await _room(database, connection, queue, [want])
            rows = await database.run(connection, "claim_suspect", params) if room else ()
            await _note_starts(database, connection, queue, rows)
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
        origin=None if row.origin is None else read_origin(row.origin),
    )
    return Claimed(row.rank, row.seq, delivery)


async def waiting(database: Database, queue: str, ranks: Ranks = EVERY_RANK) -> tuple[bool, bool]:
    """Whether a queue has ready tickets in these ranks, and whether it has suspects."""
    [row] = await database.once("have_ready", _where(queue, ranks))
    return row.ready, row.suspect


def _where(queue: str, ranks: Ranks) -> dict[str, Any]:
    return {"queue": queue, "low": ranks.low, "high": ranks.high}
