"""Queues as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobwire_server.domain.queues import JobOptions, Queue, QueueCounts, QueuePatch

from . import actions, arrays
from .actions import Entry
from .database import Database, Row

_COUNTED_MOST, _COUNTED_LEAST, _COUNTED_TOGETHER = 10_000, 100, 30_000
"""How many jobs of a kind are counted: of one queue, of each however many queues there are, and of all together."""


async def create_queue(database: Database, queue: Queue, by: str | None = None) -> bool:
    """Makes sure that a queue exists; returns whether this call created it. What an operator does is recorded."""
    options = queue.options
    settings = {
        "retry_limit": options.retry_limit,
        "retry_delay_ms": options.retry_delay_ms,
        "retry_backoff": options.retry_backoff,
        "retry_delay_max_ms": options.retry_delay_max_ms,
        "expire_ms": options.expire_ms,
        "retention_ms": options.retention_ms,
        "max_data_bytes": queue.max_data_bytes,
        "max_depth": queue.max_depth,
    }
    entry = None if by is None else Entry(by, "queue.create", queue.name)
    return await _change(database, "create_queue", queue.name, settings, entry)


async def update_queue(database: Database, name: str, patch: QueuePatch, by: str) -> bool:
    """Changes what `patch` says, and records it; returns whether the queue exists."""
    options = patch.options
    settings = {
        "retry_limit": options.retry_limit,
        "retry_delay_ms": options.retry_delay_ms,
        "retry_backoff": options.retry_backoff,
        "retry_delay_max_ms": options.retry_delay_max_ms,
        "expire_ms": options.expire_ms,
        "retention_ms": options.retention_ms,
        "max_data_bytes": patch.max_data_bytes,
        "max_depth": patch.max_depth,
    }
    said = {key: value for key, value in settings.items() if value is not None}
    return await _change(database, "update_queue", name, settings, Entry(by, "queue.update", name, said))


async def _change(
    database: Database, statement: str, name: str, settings: Mapping[str, Any], entry: Entry | None
) -> bool:
    """Runs a statement that returns a row if it did something, and has that recorded if there is an entry for it."""
    if entry is None:
        return bool(await database.once(statement, {"name": name, **settings}))
    async with database.transaction() as connection:
        done = bool(await database.run(connection, statement, {"name": name, **settings}))
        if done:
            await actions.record(database, connection, entry)
        return done


async def get_queues(database: Database, names: Sequence[str]) -> dict[str, Queue]:
    """Those of the queues that exist, by name."""
    return {row.name: _queue(row) for row in await database.once("get_queues", {"names": arrays.texts(names)})}


async def list_queues(database: Database, after: str | None, limit: int) -> list[Queue]:
    """Queues by name, after `after`."""
    return [_queue(row) for row in await database.once("list_queues", {"after": after, "limit": limit})]


async def count_jobs(database: Database, names: Sequence[str]) -> dict[str, QueueCounts]:
    """The jobs of queues. The more queues, the sooner an estimate stands in for a count."""
    most = max(_COUNTED_LEAST, min(_COUNTED_MOST, _COUNTED_TOGETHER // max(1, len(names))))
    async with database.reading() as connection:
        rows = await database.run(connection, "count_jobs", {"names": arrays.texts(names), "most": most})
    return {
        row.name: QueueCounts(row.ready, row.scheduled, row.active, row.failed, most, row.oldest_ready_ms)
        for row in rows
    }


async def depth(database: Database, queue: str, most: int) -> int:
    """How many jobs wait in a queue, ready or scheduled, counted up to `most`."""
    waiting: int = (await database.once("queue_depth", {"queue": queue, "most": most}))[0].waiting
    return min(waiting, most)


def _queue(row: Row) -> Queue:
    options = JobOptions(
        row.retry_limit, row.retry_delay_ms, row.retry_backoff, row.retry_delay_max_ms, row.expire_ms, row.retention_ms
    )
    return Queue(row.name, options, row.max_data_bytes, row.max_depth, row.created_at, row.updated_at)
