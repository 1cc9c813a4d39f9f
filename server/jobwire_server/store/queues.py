"""Queues as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from psycopg.types.json import Jsonb

from jobwire_server.domain.errors import QueueBusy
from jobwire_server.domain.limits import GATE_CHANGE_JOBS
from jobwire_server.domain.queues import (
    JobOptions,
    JobOptionsPatch,
    Policy,
    Queue,
    QueueCounts,
    QueueLimits,
    QueuePatch,
    Rate,
)

from . import actions, arrays
from .actions import Entry
from .database import Connection, Database, Row

_COUNTED_MOST, _COUNTED_LEAST, _COUNTED_TOGETHER = 10_000, 100, 30_000
"""How many jobs of a kind are counted: of one queue, of each however many queues there are, and of all together."""


async def create_queue(database: Database, queue: Queue, by: str | None = None) -> bool:
    """Makes sure that a queue exists; returns whether this call created it. What an operator does is recorded."""
    params = {
        "name": queue.name,
        "max_data_bytes": queue.max_data_bytes,
        "max_depth": queue.max_depth,
        "policy": queue.policy,
        "fair": queue.fair,
        "waiting_ms": queue.waiting_ms or None,
    }
    params |= _options(queue.options) | _limits(queue.limits) | {"dead_letter": queue.options.dead_letter or None}
    if by is None:
        return bool(await database.once("create_queue", params))
    async with database.transaction() as connection:
        created = bool(await database.run(connection, "create_queue", params))
        if created:
            await actions.record(database, connection, Entry(by, "queue.create", queue.name))
        return created


async def update_queue(database: Database, name: str, patch: QueuePatch, by: str = "") -> bool:
    """Changes what `patch` says, and records it; returns whether the queue exists.

    If its gates change, its jobs pass them anew, with the same commit. QueueBusy if they are too many for that, or do
    not fit the policy.
    """
    params = _options(patch.options) | {
        "name": name,
        "max_data_bytes": patch.max_data_bytes,
        "max_depth": patch.max_depth,
        "waiting_ms": patch.waiting_ms,
    }
    async with database.transaction() as connection:
        if patch.changes_gates and not await _change_gates(database, connection, name, patch):
            return False
        if not await database.run(connection, "update_queue", params):
            return False
        if patch.changes_gates:
            await database.run(connection, "gate_anew", {"queue": name})
        await actions.record(database, connection, Entry(by, "queue.update", name, _said(patch)))
    return True


async def _change_gates(database: Database, connection: Connection, name: str, patch: QueuePatch) -> bool:
    gates = _limits(patch.limits or QueueLimits()) | {
        "name": name,
        "policy": patch.policy,
        "fair": patch.fair,
        "set_limits": patch.limits is not None,
    }
    jobs = await database.run(connection, "lock_queue_jobs", {"queue": name, "most": GATE_CHANGE_JOBS + 1})
    if len(jobs) > GATE_CHANGE_JOBS:
        raise QueueBusy(
            name,
            f"more than {GATE_CHANGE_JOBS:,} jobs wait or run in it, and all would have to pass its gates anew;"
            " let workers catch up, or publish to a new queue",
        )
    if patch.policy is Policy.KEY_STRICT_FIFO and any(job.key is None for job in jobs):
        raise QueueBusy(name, "jobs without a key wait or run in it, and key_strict_fifo needs one of each")
    return bool(await database.run(connection, "change_gates", gates))


def _said(patch: QueuePatch) -> dict[str, object]:
    """What a patch says, for the record."""
    said = asdict(patch)
    return {name: value for name, value in {**said.pop("options"), **said}.items() if value is not None}


async def pause_queue(database: Database, name: str, by: str = "", *, paused: bool) -> bool:
    """Has nothing of a queue be claimed any more, or again, and records it; returns whether the queue exists."""
    async with database.transaction() as connection:
        known = bool(await database.run(connection, "pause_queue", {"name": name, "paused": paused}))
        if known:
            await actions.record(database, connection, Entry(by, "queue.pause" if paused else "queue.resume", name))
        return known


def _options(options: JobOptions | JobOptionsPatch) -> dict[str, Any]:
    return {
        "retry_limit": options.retry_limit,
        "retry_delay_ms": options.retry_delay_ms,
        "retry_backoff": options.retry_backoff,
        "retry_delay_max_ms": options.retry_delay_max_ms,
        "expire_ms": options.expire_ms,
        "retention_ms": options.retention_ms,
        "dead_letter": options.dead_letter,
    }


def _limits(limits: QueueLimits) -> dict[str, Any]:
    return {
        "max_active": limits.max_active,
        "rate_starts": limits.rate and limits.rate.starts,
        "rate_ms": limits.rate and limits.rate.period_ms,
        "group_limit": limits.group_max_active,
        "group_tiers": Jsonb(dict(limits.tier_max_active)),
        "group_rate_starts": limits.group_rate and limits.group_rate.starts,
        "group_rate_ms": limits.group_rate and limits.group_rate.period_ms,
    }


async def get_queues(database: Database, names: Sequence[str]) -> dict[str, Queue]:
    """Those of the queues that exist, by name."""
    return {row.name: _queue(row) for row in await database.once("get_queues", {"names": arrays.texts(names)})}


async def list_queues(database: Database, after: str | None, limit: int) -> list[Queue]:
    """Queues by name, after `after`."""
    return [_queue(row) for row in await database.once("list_queues", {"after": after, "limit": limit})]


def counted_up_to(queues: int) -> int:
    """How many jobs of a kind are counted in each of so many queues before an estimate stands in."""
    return max(_COUNTED_LEAST, min(_COUNTED_MOST, _COUNTED_TOGETHER // max(1, queues)))


async def count_jobs(database: Database, names: Sequence[str]) -> dict[str, QueueCounts]:
    """The jobs of queues. The more queues, the sooner an estimate stands in for a count."""
    most = counted_up_to(len(names))
    async with database.reading() as connection:
        rows = await database.run(connection, "count_jobs", {"names": arrays.texts(names), "most": most})
    return {
        row.name: QueueCounts(row.ready, row.scheduled, row.active, row.blocked, row.failed, most, row.oldest_ready_ms)
        for row in rows
    }


async def depth(database: Database, queue: str, most: int) -> int:
    """How many jobs wait in a queue, ready or scheduled, counted up to `most`."""
    waiting: int = (await database.once("queue_depth", {"queue": queue, "most": most}))[0].waiting
    return min(waiting, most)


def _queue(row: Row) -> Queue:
    return Queue(
        name=row.name,
        options=JobOptions(
            row.retry_limit,
            row.retry_delay_ms,
            row.retry_backoff,
            row.retry_delay_max_ms,
            row.expire_ms,
            row.retention_ms,
            row.dead_letter,
        ),
        max_data_bytes=row.max_data_bytes,
        max_depth=row.max_depth,
        policy=Policy(row.policy),
        limits=QueueLimits(
            row.max_active,
            _rate(row.rate_starts, row.rate_ms),
            row.group_limit,
            row.group_tiers,
            _rate(row.group_rate_starts, row.group_rate_ms),
        ),
        fair=row.fair,
        waiting_ms=row.waiting_ms,
        paused=row.paused,
        gated=row.gated,
        guarded=row.guarded,
        limited=row.limited,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _rate(starts: int | None, period_ms: int | None) -> Rate | None:
    return None if starts is None or period_ms is None else Rate(starts, period_ms)
