"""The real thing: one PostgreSQL, and the store as two replicas use it, each by its own connections.

What is found there is put into the words of the model, to be compared with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from jobwire_server.domain.queues import JobOptions, Policy, Queue, QueueLimits
from jobwire_server.store import queues
from jobwire_server.store.database import Database
from tests.conftest import opened

from .names import made, name

HOUR_MS = 3_600_000
QUEUES = tuple(
    Queue(queue, JobOptions(retry_limit=2, retry_delay_ms=delay, retry_backoff=False, expire_ms=600_000))
    for queue, delay in (("a", 0), ("b", HOUR_MS))
)
"""A queue whose jobs are tried again at once, and one where they wait for it."""
KEYS = Queue("k", QUEUES[0].options, policy=Policy.SINGLETON, gated=True, guarded=True)
GROUPS = Queue("g", QUEUES[0].options, limits=QueueLimits(group_max_active=2), gated=True, guarded=True)
GATES = {KEYS.name: 1, GROUPS.name: 2}
"""In these queues so many jobs of a key, or of a group, may be ready or active at once."""
NAMES = (*(queue.name for queue in QUEUES), *GATES)
_CLEARED = ("blocked", "gate_event", "slot", "guard", "live_job", "ready", "scheduled", "claim", "session", "archive")

_BETWEEN_CLEANINGS = 10

_LOOK = """
WITH member AS (
    SELECT c.queue, c.token, c.check_at, c.claimed_at, m.*
    FROM {s}.claim c CROSS JOIN LATERAL unnest(c.ids, c.attempts) WITH ORDINALITY AS m (id, attempt, place)
), ticket AS (
    SELECT queue, id, rank, seq, 'ready' || CASE WHEN suspect THEN ' alone' ELSE '' END AS kind FROM {s}.ready
    UNION ALL
    SELECT queue, id, rank, seq, 'scheduled' || CASE WHEN suspect THEN ' alone' ELSE '' END FROM {s}.scheduled
    UNION ALL
    SELECT queue, id, NULL, NULL, 'blocked' || CASE WHEN suspect THEN ' alone' ELSE '' END
    FROM (SELECT queue, id, suspect FROM {s}.blocked
        UNION ALL SELECT queue, id, suspect FROM {s}.gate_event WHERE kind = 1) waiting
), job AS (
    SELECT j.seq, json_build_array(j.queue, j.id, j.rank, j.attempt, j.retry_count, j.loss_count, j.release_count,
        coalesce(jsonb_array_length(j.errors), 0), j.stop_reason, j.settled_token,
        ARRAY(SELECT t.kind FROM ticket t
            WHERE t.queue = j.queue AND t.id = j.id AND (t.seq IS NULL OR t.rank = j.rank AND t.seq = j.seq)),
        ARRAY(SELECT json_build_array(m.token, m.place, m.check_at - interval '1 second' <=
                coalesce(j.stop_at, j.expires_at, m.claimed_at + j.expire_ms * interval '1 millisecond'))
            FROM member m WHERE m.queue = j.queue AND m.id = j.id AND m.attempt = j.attempt)) AS shown
    FROM {s}.live_job j
)
SELECT json_build_object(
    'jobs', (SELECT coalesce(json_agg(shown ORDER BY seq), '[]') FROM job),
    'tickets', (SELECT count(*) FROM ticket),
    'claims', (SELECT coalesce(json_agg(json_build_array(token, session_id)), '[]') FROM {s}.claim),
    'sessions', (SELECT coalesce(json_agg(json_build_array(id, owner, epoch, renewals)), '[]') FROM {s}.session),
    'finished', (SELECT count(*) FROM {s}.archive))
"""
_OUTCOMES = """
SELECT queue, id, state, attempt, retry_count, loss_count, release_count, coalesce(jsonb_array_length(errors), 0), token
FROM {s}.archive WHERE id = ANY (%(ids)s) ORDER BY finished_at
"""


class Stage:
    """Two replicas over one schema. `replicas` are their ids, which change when they start anew."""

    def __init__(self, databases: Sequence[Database], direct: psycopg.AsyncConnection[Any], schema: str) -> None:
        self.databases = databases
        self._direct = direct
        self._schema = sql.Identifier(schema)
        self._texts: dict[str, bytes] = {}
        self._cleared = 0

    @classmethod
    @asynccontextmanager
    async def ready(cls, dsn: str, schema: str) -> AsyncIterator[Stage]:
        """A stage in a schema that is made for it."""
        async with (
            opened(dsn, schema) as one,
            Database(dsn, schema, pool_size=1) as other,
            await psycopg.AsyncConnection.connect(dsn, autocommit=True) as direct,
        ):
            # A pooler may stand between, with which nothing stays prepared.
            direct.prepare_threshold = None
            for queue in (*QUEUES, KEYS, GROUPS):
                await queues.create_queue(one, queue)
            yield cls((one, other), direct, schema)

    async def execute(self, statement: str, params: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Past the store: what moves time, and what looks on. `{s}` is the schema."""
        text = self._texts.get(statement)
        if text is None:
            text = self._texts[statement] = sql.SQL(statement).format(s=self._schema).as_bytes(self._direct)
        cursor = await self._direct.execute(text, params)
        return await cursor.fetchall() if cursor.description else []

    async def clear(self) -> None:
        """Nothing is left but the queues."""
        await self.execute(
            "WITH "
            + ", ".join(f"in_{table} AS (DELETE FROM {{s}}.{table})" for table in _CLEARED)
            + " UPDATE {s}.queue SET paused = false WHERE paused"
        )
        # What is deleted stays in the way of a look until it is cleaned up, which costs more.
        self._cleared += 1
        if self._cleared % _BETWEEN_CLEANINGS == 0:
            await self.execute("TRUNCATE " + ", ".join(f"{{s}}.{table}" for table in _CLEARED))

    async def look(self) -> dict[str, Any]:
        """All that lives, as `Model.shown` has it. A look that would come too late is told in the lease's place."""
        [(found,)] = await self.execute(_LOOK)
        for job in found["jobs"]:
            job[1] = _named(job[1])
            job[9] = _named(job[9])
            job[11] = [f"{_named(token)}.{place}" + ("" if soon else " late") for token, place, soon in job[11]]
        found["claims"] = sorted([_named(token), _named(session)] for token, session in found["claims"])
        found["sessions"] = sorted([_named(id_), _named(owner), *rest] for id_, owner, *rest in found["sessions"])
        return found

    async def outcomes(self, ids: Sequence[UUID]) -> list[list[Any]]:
        """What is recorded of finished jobs, in the order in which they finished, as `Finished.shown` has it."""
        rows = await self.execute(_OUTCOMES, {"ids": list(ids)})
        return [[queue, name(id_), *rest, name(token)] for queue, id_, *rest, token in rows]


def _named(text: str | None) -> str:
    return name(UUID(text) if text else None)


def replica_id(number: int) -> UUID:
    """The id of the `number`th replica that is started."""
    return made("r", number)
