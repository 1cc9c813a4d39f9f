"""Storing jobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from jobwire_server.domain.jobs import NewJob, Published
from jobwire_server.domain.limits import DEDUPLICATION_HOURS
from jobwire_server.domain.queues import JobOptions, Queue

from . import arrays
from .database import Database


async def known_ids(database: Database, queue: str, ids: Collection[UUID]) -> set[UUID]:
    """Those of the ids under which nothing would be stored now."""
    params = {"queue": queue, "ids": arrays.uuids(ids), "hours": DEDUPLICATION_HOURS}
    return {row.id for row in await database.once("known_ids", params)}


@dataclass(frozen=True, slots=True)
class PublishOutcome:
    """What a publish did: a result for each job, in order, and whether any of them may be claimed already."""

    results: list[Published]
    any_created: bool


async def publish(database: Database, queue: Queue, jobs: Sequence[NewJob]) -> PublishOutcome:
    """Stores `jobs`, all or (on error) none, and has them on disk when it returns.

    A job whose id is known is not stored again.

    Two jobs of one id in the list: the first is stored, the second meets it.
    """
    first: dict[UUID, NewJob] = {}
    for job in jobs:
        first.setdefault(job.id, job)
    unique = list(first.values())
    rules: dict[JobOptions, int] = {}
    rule_of = [rules.setdefault(job.options.over(queue.options), len(rules) + 1) for job in unique]
    params = {
        "queue": queue.name,
        "ids": arrays.uuids(job.id for job in unique),
        "datas": arrays.texts(job.data for job in unique),
        "ranks": arrays.int4s(-job.priority for job in unique),
        "headers": arrays.texts(job.headers for job in unique),
        "starts": arrays.timestamps(job.start_after for job in unique),
        "delays": arrays.int8s(job.start_in_ms for job in unique),
        "rules": arrays.int4s(rule_of),
        "retry_limits": arrays.int4s(rule.retry_limit for rule in rules),
        "retry_delays": arrays.int8s(rule.retry_delay_ms for rule in rules),
        "retry_backoffs": arrays.bools(rule.retry_backoff for rule in rules),
        "retry_delay_maxs": arrays.int8s(rule.retry_delay_max_ms for rule in rules),
        "expires": arrays.int8s(rule.expire_ms for rule in rules),
        "retentions": arrays.int8s(rule.retention_ms for rule in rules),
    }
    repeatable = [job.id for job in unique if job.client_id]
    lookup = {"queue": queue.name, "ids": arrays.uuids(repeatable), "hours": DEDUPLICATION_HOURS}
    async with database.connection() as connection:
        if repeatable:
            [stored_now], taken_back = await database.together(
                connection, ("publish", params), ("unpublish_known", lookup)
            )
        else:
            [stored_now], taken_back = await database.run(connection, "publish", params), ()
        if stored_now.ids is None and not taken_back and len(unique) == len(jobs):
            return PublishOutcome([Published(job.id, True) for job in jobs], True)
        stored = {job.id for job in unique} if stored_now.ids is None else set(stored_now.ids)
        stored -= {row.id for row in taken_back}
        met = [job.id for job in unique if job.id not in stored]
        before: dict[UUID, str] = {}
        if met:
            for row in await database.run(
                connection, "published_before", {"queue": queue.name, "ids": arrays.uuids(met)}
            ):
                before.setdefault(row.id, row.data)
    results = []
    fresh = set(stored)
    for job in jobs:
        if job.id in fresh:
            fresh.discard(job.id)
            results.append(Published(job.id, True))
        else:
            known = before.get(job.id, first[job.id].data)
            results.append(Published(job.id, False, data_differs=known != job.data))
    return PublishOutcome(results, bool(stored))
