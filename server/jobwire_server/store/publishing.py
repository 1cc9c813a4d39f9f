"""Storing jobs, and handing them to sessions that wait for them in the same breath."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import Delivery, NewJob, NotCreated, Published
from jobwire_server.domain.limits import DEDUPLICATION_HOURS
from jobwire_server.domain.queues import NOTHING_SAID, JobOptions, Queue

from . import arrays
from .claiming import Span, Want, claim_params
from .database import Connection, Database, Row


async def known_ids(database: Database, queue: str, ids: Collection[UUID]) -> set[UUID]:
    """Those of the ids under which nothing would be stored now."""
    params = {"queue": queue, "ids": arrays.uuids(ids), "hours": DEDUPLICATION_HOURS}
    return {row.id for row in await database.once("known_ids", params)}


class QueueChanged(Exception):
    """The queue is not what the caller knew, and nothing was stored: looking at it again helps."""


@dataclass(frozen=True, slots=True)
class PublishOutcome:
    """What a publish did: a result for each job, in order, and which of them were claimed in the same breath."""

    results: list[Published]
    claimed: Sequence[Delivery] = ()

    @property
    def created(self) -> int:
        """How many were stored."""
        return sum(result.created for result in self.results)


Condition = Callable[[Connection], Awaitable[bool]]
"""A step of the caller's own, first in the transaction that stores jobs; they are stored only if it says so."""


async def publish(database: Database, queue: Queue, jobs: Sequence[NewJob]) -> PublishOutcome:
    """Stores `jobs`, all or (on error) none, and has them on disk when it returns.

    A job whose id is known is not stored again.

    Two jobs of one id in the list: the first is stored, the second meets it.
    """
    async with database.connection() as connection:
        return await _publish(database, connection, queue, jobs)


async def publish_if(
    database: Database, queue: Queue, jobs: Sequence[NewJob], condition: Condition
) -> PublishOutcome | None:
    """Stores `jobs` as `publish` or `publish_keyed` do, in one transaction with `condition`; None if that says no."""
    store = _publish_keyed if minds_keys(queue, jobs) else _publish
    async with database.transaction() as connection:
        return await store(database, connection, queue, jobs) if await condition(connection) else None


def minds_keys(queue: Queue, jobs: Iterable[NewJob]) -> bool:
    """Whether storing the jobs takes `publish_keyed`."""
    return queue.guarded or not all(job.plain for job in jobs)


async def _publish(database: Database, connection: Connection, queue: Queue, jobs: Sequence[NewJob]) -> PublishOutcome:
    unique = _first_of_each_id(jobs)
    params = _rows(queue, unique.values()) | {
        "starts": arrays.timestamps(job.start_after for job in unique.values()),
        "delays": arrays.int8s(job.start_in_ms for job in unique.values()),
    }
    row, taken_back = await _store(database, connection, "publish", params, queue, unique.values())
    if row.guarded:
        raise QueueChanged
    stored = unique.keys() if row.ids is None else set(row.ids)
    return PublishOutcome(await _results(database, connection, queue, jobs, unique, stored - taken_back))


async def publish_keyed(database: Database, queue: Queue, jobs: Sequence[NewJob]) -> PublishOutcome:
    """Stores `jobs` as `publish` does, and minds their keys and the gates of `queue`."""
    async with database.transaction() as connection:
        return await _publish_keyed(database, connection, queue, jobs)


async def _publish_keyed(
    database: Database, connection: Connection, queue: Queue, jobs: Sequence[NewJob]
) -> PublishOutcome:
    params = {
        "queue": queue.name,
        "hours": DEDUPLICATION_HOURS,
        "jobs": Jsonb([_item(job, job.options.over(queue.options)) for job in jobs]),
    }
    refused = {row.n: row for row in await database.run(connection, "publish_keyed", params)}
    before: dict[UUID, str] = {}
    known = [row.met for row in refused.values() if row.outcome == NotCreated.DUPLICATE_ID]
    if known:
        lookup = {"queue": queue.name, "ids": arrays.uuids(known)}
        for row in await database.run(connection, "published_before", lookup):
            before.setdefault(row.id, row.data)
    results = []
    for place, job in enumerate(jobs, 1):
        row = refused.get(place)
        if row is None:
            results.append(Published(job.id, True))
            continue
        reason = NotCreated(row.outcome)
        differs = reason is NotCreated.DUPLICATE_ID and before.get(job.id, job.data) != job.data
        results.append(Published(job.id, False, differs, reason, row.met))
    return PublishOutcome(results)


def _item(job: NewJob, rule: JobOptions) -> dict[str, Any]:
    labels = job.labels
    return {
        "id": str(job.id),
        "given": job.client_id,
        "data": job.data,
        "headers": job.headers,
        "rank": -job.priority,
        "start_at": job.start_after and job.start_after.isoformat(),
        "start_in_ms": job.start_in_ms,
        "retry_limit": rule.retry_limit,
        "retry_delay_ms": rule.retry_delay_ms,
        "retry_backoff": rule.retry_backoff,
        "retry_delay_max_ms": rule.retry_delay_max_ms,
        "expire_ms": rule.expire_ms,
        "retention_ms": rule.retention_ms,
        # The queue's own is looked up when the job fails.
        "dead_letter": job.options.dead_letter,
        "key": labels.key,
        "group": labels.group,
        "tier": labels.tier,
        "throttle_ms": labels.throttle_ms,
        "debounce_ms": labels.debounce_ms,
        "unique_ms": labels.unique_ms,
    }


@dataclass(frozen=True, slots=True)
class Stored:
    """A job to be stored in a queue by whoever has a transaction for it."""

    queue: Queue
    job: NewJob


async def store_one(database: Database, connection: Connection, stored: Stored) -> UUID | None:
    """Stores one job as `publish_keyed` does, within the caller's transaction; None if it is not to be stored."""
    job = stored.job
    params = {
        "queue": stored.queue.name,
        "hours": DEDUPLICATION_HOURS,
        "jobs": Jsonb([_item(job, job.options.over(stored.queue.options))]),
    }
    return None if await database.run(connection, "publish_keyed", params) else job.id


async def hand_over(
    database: Database,
    replica: UUID,
    queue: Queue,
    jobs: Sequence[NewJob],
    wants: Sequence[Want],
    spans: Sequence[Span],
) -> PublishOutcome:
    """Stores `jobs` as `publish` does, and claims the first of them for the sessions, as `claim` does.

    None of the jobs may wait for a time. Nothing is claimed if tickets wait in the spans already: they come first.
    """
    unique = _first_of_each_id(jobs)
    params = _rows(queue, unique.values()) | claim_params(replica, queue.name, wants, spans)
    params["befores"] = arrays.int4s(want.before for want in wants)
    async with database.connection() as connection:
        row, taken_back = await _store(database, connection, "hand_over", params, queue, unique.values(), wants)
        if row.guarded:
            raise QueueChanged
        results = await _results(database, connection, queue, jobs, unique, set(row.ids) - taken_back)
    claimed = []
    for job_id, want, place in zip(row.ids, row.wants or (), row.places or (), strict=False):
        if job_id in taken_back:
            continue
        job = unique[job_id]
        rule = job.options.over(queue.options)
        handle = Handle(queue.name, job_id, wants[want - 1].token, place)
        claimed.append(
            Delivery(
                handle, job.data, job.headers, job.priority, 1, 0, rule.retry_limit, row.created_at, rule.expire_ms
            )
        )
    return PublishOutcome(results, claimed)


def _first_of_each_id(jobs: Iterable[NewJob]) -> dict[UUID, NewJob]:
    first: dict[UUID, NewJob] = {}
    for job in jobs:
        first.setdefault(job.id, job)
    return first


def _rows(queue: Queue, jobs: Collection[NewJob]) -> dict[str, Any]:
    rules = {queue.options: 1}
    rule_of = [
        1 if job.options is NOTHING_SAID else rules.setdefault(job.options.over(queue.options), len(rules) + 1)
        for job in jobs
    ]
    return {
        "queue": queue.name,
        "ids": arrays.uuids(job.id for job in jobs),
        "datas": arrays.texts(job.data for job in jobs),
        "ranks": arrays.int4s(-job.priority for job in jobs),
        "headers": arrays.texts(job.headers for job in jobs),
        "rules": arrays.int4s(rule_of),
        "retry_limits": arrays.int4s(rule.retry_limit for rule in rules),
        "retry_delays": arrays.int8s(rule.retry_delay_ms for rule in rules),
        "retry_backoffs": arrays.bools(rule.retry_backoff for rule in rules),
        "retry_delay_maxs": arrays.int8s(rule.retry_delay_max_ms for rule in rules),
        "expires": arrays.int8s(rule.expire_ms for rule in rules),
        "retentions": arrays.int8s(rule.retention_ms for rule in rules),
    }


async def _store(
    database: Database,
    connection: Connection,
    statement: str,
    params: Mapping[str, Any],
    queue: Queue,
    jobs: Iterable[NewJob],
    wants: Sequence[Want] = (),
) -> tuple[Row, set[UUID]]:
    """Runs the statement that stores; returns its row, and the ids that were known after all."""
    repeatable = [job.id for job in jobs if job.client_id]
    if not repeatable:
        [row] = await database.run(connection, statement, params)
        return row, set()
    lookup = {
        "queue": queue.name,
        "ids": arrays.uuids(repeatable),
        "tokens": arrays.uuids(want.token for want in wants),
        "hours": DEDUPLICATION_HOURS,
    }
    [row], taken_back = await database.together(connection, (statement, params), ("unpublish_known", lookup))
    return row, {known.id for known in taken_back}


async def _results(
    database: Database,
    connection: Connection,
    queue: Queue,
    jobs: Sequence[NewJob],
    unique: Mapping[UUID, NewJob],
    stored: Collection[UUID],
) -> list[Published]:
    if len(stored) == len(jobs):
        return [Published(job.id, True) for job in jobs]
    met = [job_id for job_id in unique if job_id not in stored]
    before: dict[UUID, str] = {}
    if met:
        for row in await database.run(connection, "published_before", {"queue": queue.name, "ids": arrays.uuids(met)}):
            before.setdefault(row.id, row.data)
    results = []
    fresh = set(stored)
    for job in jobs:
        if job.id in fresh:
            fresh.discard(job.id)
            results.append(Published(job.id, True))
        else:
            known = before.get(job.id, unique[job.id].data)
            results.append(Published(job.id, False, known != job.data, NotCreated.DUPLICATE_ID, job.id))
    return results
