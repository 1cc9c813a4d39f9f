"""Queues as rows."""

from __future__ import annotations

from collections.abc import Sequence

from jobwire_server.domain.queues import JobOptions, Queue, QueueCounts, QueuePatch

from . import arrays
from .database import Database, Row


async def create_queue(database: Database, queue: Queue) -> bool:
    """Makes sure that a queue exists; returns whether this call created it."""
    options = queue.options
    rows = await database.once(
        "create_queue",
        {
            "name": queue.name,
            "retry_limit": options.retry_limit,
            "retry_delay_ms": options.retry_delay_ms,
            "retry_backoff": options.retry_backoff,
            "retry_delay_max_ms": options.retry_delay_max_ms,
            "expire_ms": options.expire_ms,
            "retention_ms": options.retention_ms,
            "max_data_bytes": queue.max_data_bytes,
            "max_depth": queue.max_depth,
        },
    )
    return bool(rows)


async def update_queue(database: Database, name: str, patch: QueuePatch) -> bool:
    """Changes what `patch` says; returns whether the queue exists."""
    options = patch.options
    rows = await database.once(
        "update_queue",
        {
            "name": name,
            "retry_limit": options.retry_limit,
            "retry_delay_ms": options.retry_delay_ms,
            "retry_backoff": options.retry_backoff,
            "retry_delay_max_ms": options.retry_delay_max_ms,
            "expire_ms": options.expire_ms,
            "retention_ms": options.retention_ms,
            "max_data_bytes": patch.max_data_bytes,
            "max_depth": patch.max_depth,
        },
    )
    return bool(rows)


async def get_queues(database: Database, names: Sequence[str]) -> dict[str, Queue]:
    """Those of the queues that exist, by name."""
    return {row.name: _queue(row) for row in await database.once("get_queues", {"names": arrays.texts(names)})}


async def list_queues(database: Database, after: str | None, limit: int) -> list[Queue]:
    """Queues by name, after `after`."""
    return [_queue(row) for row in await database.once("list_queues", {"after": after, "limit": limit})]


async def count_jobs(database: Database, names: Sequence[str]) -> dict[str, QueueCounts]:
    """The live jobs of queues."""
    async with database.reading() as connection:
        rows = await database.run(connection, "count_jobs", {"names": arrays.texts(names)})
    return {row.name: QueueCounts(row.ready, row.scheduled, row.active) for row in rows}


async def depth(database: Database, queue: str, most: int) -> int:
    """How many jobs wait in a queue, ready or scheduled, counted up to `most`."""
    waiting: int = (await database.once("queue_depth", {"queue": queue, "most": most}))[0].waiting
    return min(waiting, most)


def _queue(row: Row) -> Queue:
    options = JobOptions(
        row.retry_limit, row.retry_delay_ms, row.retry_backoff, row.retry_delay_max_ms, row.expire_ms, row.retention_ms
    )
    return Queue(row.name, options, row.max_data_bytes, row.max_depth, row.created_at, row.updated_at)
