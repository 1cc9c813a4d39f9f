"""Sending dead letters back to work.

A step is one transaction: a dead letter is taken out of its queue with the same commit that stores the job it becomes,
through the entrance that minds keys and gates. One that is refused keeps its place and its ticket.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import uuid_utils.compat
from psycopg.types.json import Jsonb

from jobwire_server.domain.dead_letters import (
    Redriven,
    RedriveOrder,
    RedrivePlace,
    RedriveStep,
    Refusal,
)
from jobwire_server.domain.limits import DEDUPLICATION_HOURS
from jobwire_server.domain.queues import Policy

from . import arrays
from .database import Connection, Database, Row

_AT_ONCE = 100
_WINDOW = 1_000


class _DryRun(Exception):
    """Undoes what a dry run did."""


@dataclass(slots=True)
class _Letter:
    row: Row
    target: str | None
    new_id: UUID
    refusal: Refusal | None = None
    met: UUID | None = None


async def redrive(database: Database, order: RedriveOrder, place: RedrivePlace) -> RedriveStep:
    """One step of a redrive; a dry run does it and undoes it."""
    step: RedriveStep | None = None
    with contextlib.suppress(_DryRun):
        async with database.transaction() as connection:
            step = await _redrive(database, connection, order, place)
            if order.dry_run:
                raise _DryRun
    assert step is not None
    return step


async def _redrive(database: Database, connection: Connection, order: RedriveOrder, place: RedrivePlace) -> RedriveStep:
    if place.began is None:
        [row] = await database.run(connection, "database_time")
        place = replace(place, began=row.now)
    assert place.began is not None
    left = order.limit - place.redriven if order.limit else _AT_ONCE
    params = {
        "queue": order.queue,
        "after": place.after,
        "before": place.began,
        "origin_queue": order.filter.origin_queue,
        "error_type": order.filter.error_type,
        "failed_after": order.filter.failed_after,
        "failed_before": order.filter.failed_before,
        "window": _WINDOW,
        "limit": min(left, _AT_ONCE),
    }
    rows = await database.run(connection, "redrive_finished" if place.finished else "redrive_waiting", params)
    upto = rows[0].upto
    letters = [_letter(order, row, finished=place.finished) for row in rows if row.id is not None]
    gated = await _store(database, connection, order, place, letters)
    await _take_out(database, connection, order, letters, finished=place.finished)
    redriven = place.redriven + sum(letter.refusal is None for letter in letters)
    following: RedrivePlace | None = replace(place, redriven=redriven, after=upto)
    if order.limit and redriven >= order.limit:
        following = None
    elif upto is None:
        following = None if place.finished or not order.finished else RedrivePlace(place.began, redriven, finished=True)
    results = [
        Redriven(
            letter.row.id,
            letter.target or "",
            None if letter.refusal else letter.new_id,
            letter.refusal,
            letter.met,
        )
        for letter in letters
    ]
    return RedriveStep(results, redriven, following, gated)


def _letter(order: RedriveOrder, row: Row, *, finished: bool) -> _Letter:
    target = order.destination or (row.origin["queue"] if row.origin else None)
    letter = _Letter(row, target, uuid_utils.compat.uuid7())
    if finished and row.went_to is not None:
        letter.refusal = Refusal.WENT_ON
    elif target is None:
        letter.refusal = Refusal.NO_ORIGIN
    return letter


async def _store(
    database: Database, connection: Connection, order: RedriveOrder, place: RedrivePlace, letters: Sequence[_Letter]
) -> frozenset[str]:
    """Stores what can be stored, queue by queue in their order, and says of the others why not."""
    by_target: dict[str, list[_Letter]] = defaultdict(list)
    for letter in letters:
        if letter.refusal is None and letter.target is not None:
            by_target[letter.target].append(letter)
    names = sorted(by_target)
    queues = {row.name: row for row in await database.run(connection, "get_queues", {"names": arrays.texts(names)})}
    turn = place.redriven
    gated = set()
    for name in names:
        if name in queues and queues[name].gated:
            gated.add(name)
        turn += await _store_in(
            database, connection, queues.get(name), by_target[name], partial(_start, order, place, turn)
        )
    return frozenset(gated)


async def _store_in(
    database: Database,
    connection: Connection,
    queue: Row | None,
    letters: Sequence[_Letter],
    start: Callable[[int], datetime | None],
) -> int:
    """Stores letters in one queue, and says of those that it does not take why not; returns how many it took."""
    for letter in letters:
        if queue is None:
            letter.refusal = Refusal.NO_QUEUE
        elif queue.policy == Policy.KEY_STRICT_FIFO and letter.row.key is None:
            letter.refusal = Refusal.NO_KEY
    mine = [letter for letter in letters if letter.refusal is None]
    if queue is None or not mine:
        return 0
    items = [_item(queue, letter, start(index)) for index, letter in enumerate(mine)]
    params = {"queue": queue.name, "jobs": Jsonb(items), "hours": DEDUPLICATION_HOURS}
    for row in await database.run(connection, "publish_keyed", params):
        mine[row.n - 1].refusal, mine[row.n - 1].met = Refusal(row.outcome), row.met
    stored = [letter for letter in mine if letter.refusal is None]
    origins = [
        {"id": str(letter.new_id), "origin": _origin(letter.row.origin)} for letter in stored if letter.row.origin
    ]
    if origins:
        await database.run(connection, "redriven", {"queue": queue.name, "origins": Jsonb(origins)})
    return len(stored)


def _start(order: RedriveOrder, place: RedrivePlace, before: int, index: int) -> datetime | None:
    """When a job starts before which so many others do: one after the other, from the beginning of the redrive."""
    if not order.rate or place.began is None:
        return None
    return place.began + timedelta(seconds=(before + index) / order.rate)


def _item(queue: Row, letter: _Letter, start: datetime | None) -> dict[str, Any]:
    row = letter.row
    return {
        "id": str(letter.new_id),
        "given": False,
        "data": row.data,
        "headers": row.headers,
        "rank": row.rank,
        "start_at": start and start.isoformat(),
        "retry_limit": queue.retry_limit,
        "retry_delay_ms": queue.retry_delay_ms,
        "retry_backoff": queue.retry_backoff,
        "retry_delay_max_ms": queue.retry_delay_max_ms,
        "expire_ms": queue.expire_ms,
        "retention_ms": queue.retention_ms,
        # What the job itself had said, if it goes back to where it said so.
        "dead_letter": row.origin.get("dead_letter") if row.origin and letter.target == row.origin["queue"] else None,
        "key": row.key,
        "group": row.group_id,
        "tier": row.tier,
    }


def _origin(origin: dict[str, Any]) -> dict[str, Any]:
    """What a redriven job knows: it may fail again wherever it did before."""
    return origin | {"path": [], "redrives": origin.get("redrives", 0) + 1}


async def _take_out(
    database: Database, connection: Connection, order: RedriveOrder, letters: Sequence[_Letter], *, finished: bool
) -> None:
    gone = arrays.uuids(letter.row.id for letter in letters if letter.refusal is None)
    none = arrays.uuids(())
    params = {"queue": order.queue, "waiting": none if finished else gone, "finished": gone if finished else none}
    await database.run(connection, "drop_redriven", params)
    if finished:
        return
    kept = [
        {"id": str(row.id), "suspect": row.suspect, "due": row.due and row.due.isoformat()}
        for row in (letter.row for letter in letters if letter.refusal is not None)
    ]
    if kept:
        await database.run(connection, "put_back", {"queue": order.queue, "tickets": Jsonb(kept)})
