"""What claims and gates read beside a deep backlog: `python -m bench.speed.keys`, `… --full`.

Two databases, each with a queue that keeps the order of keys and a plain one. The first holds next to nothing; in the
other jobs wait, are due later, and stand in line for thousands of keys, one of which is held up by a job that failed.
Pages are counted, nothing is timed: by PostgreSQL, of the very statements that servers run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.rows import tuple_row
from uuid_utils.compat import uuid7

from bench.speed.finding import Finding, command, database, progress
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import AckItem, Complete, Fail, Labels, NewJob
from jobwire_server.domain.queues import Policy, Queue
from jobwire_server.store import archive, claiming, gates, migrate, publishing, queues, sessions, settling
from jobwire_server.store.database import Database

_FULL = {"ready": 1_000_000, "future": 1_000_000, "keys": 50_000}
_WARM = 6
"""So often each is done before it is counted: plans are made, and the catalog read, at the first times."""

_JOBS = """
INSERT INTO jobwire.live_job (queue, id, seq, rank, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms,
    expire_ms, retention_ms, start_after, data, key, gated)
SELECT q.name, gen_random_uuid(), nextval('jobwire.job_seq'), 0, q.retry_limit, q.retry_delay_ms, q.retry_backoff,
    q.retry_delay_max_ms, q.expire_ms, q.retention_ms, now() + %(days)s * interval '1 day', '{}',
    CASE WHEN q.gated THEN 'key ' || n %% %(keys)s END, CASE WHEN q.gated THEN true END
FROM jobwire.queue q, generate_series(1, %(jobs)s) AS n WHERE q.name = %(queue)s
"""
_TICKETS = """
INSERT INTO jobwire.ready (queue, rank, seq, id)
SELECT queue, rank, seq, id FROM jobwire.live_job WHERE queue = 'work' AND start_after <= now();
INSERT INTO jobwire.scheduled (queue, rank, seq, id, start_after)
SELECT queue, rank, seq, id, start_after FROM jobwire.live_job WHERE start_after > now();
INSERT INTO jobwire.slot (queue, id, gate, rank, seq)
SELECT DISTINCT ON (key) queue, id, 'k' || key, 0, seq FROM jobwire.live_job
WHERE queue = 'orders' AND key <> 'key 0' ORDER BY key, seq;
INSERT INTO jobwire.ready (queue, rank, seq, id)
SELECT queue, 0, seq, id FROM jobwire.slot WHERE NOT failed;
INSERT INTO jobwire.blocked (queue, id, gate, rank, seq, suspect)
SELECT queue, id, 'k' || key, 0, seq, false FROM jobwire.live_job j
WHERE queue = 'orders' AND NOT EXISTS (SELECT FROM jobwire.slot s WHERE s.queue = j.queue AND s.id = j.id);
VACUUM ANALYZE
"""


class _Place:
    """A database, and a worker that takes from its two queues."""

    def __init__(self, of: Database) -> None:
        self._of = of
        self._replica, self._session = uuid4(), uuid4()

    async def prepare(self) -> None:
        """Makes the queues; the first key of the one that keeps their order is held up."""
        await migrate.migrate(self._of)
        await archive.make_days_ahead(self._of)
        for queue in (Queue("work"), Queue("orders", policy=Policy.KEY_STRICT_FIFO)):
            await queues.create_queue(self._of, queue)
        terms = sessions.SessionTerms("bench", ("work", "orders"), 1_000, 60_000)
        await sessions.open_session(self._of, self._replica, self._session, terms)
        await self._publish("orders", "key 0")
        await gates.admit(self._of, "orders")
        want = claiming.Want(self._session, 1, uuid4(), 1)
        [job] = await claiming.claim(self._of, self._replica, "orders", [want])
        failed = AckItem(job.delivery.handle, Fail("E", "no", "", permanent=True))
        await settling.settle(self._of, [failed])
        await gates.admit(self._of, "orders")

    async def fill(self, ready: int, future: int, keys: int, each: int) -> None:
        """Stores the backlog with plain SQL, as publishing would leave it."""
        # A connection as anybody has it: the server's keep to plans that suit single jobs, and are bounded in time.
        async with await psycopg.AsyncConnection.connect(self._of.conninfo, autocommit=True) as connection:
            for queue, jobs, days in (("work", ready, 0), ("work", future, 1), ("orders", keys * each, 0)):
                progress(f"keys: storing {jobs:,} jobs")
                await connection.execute(_JOBS.encode(), {"queue": queue, "jobs": jobs, "days": days, "keys": keys})
            progress("keys: lining them up")
            for statement in _TICKETS.split(";"):
                await connection.execute(statement.encode())

    async def _publish(self, queue: str, key: str | None) -> None:
        known = (await queues.get_queues(self._of, [queue]))[queue]
        await publishing.publish_keyed(self._of, known, [NewJob(uuid7(), "{}", priority=9, labels=Labels(key))])

    async def pages(self) -> dict[str, int]:
        """The pages read by each kind of step, for one job; after a few that are not counted."""
        for _ in range(_WARM):
            await self._steps()
        return await self._steps()

    async def _steps(self) -> dict[str, int]:
        found = {}
        await self._publish("work", None)
        found["a claim of a plain queue"], _ = await self._claim("work")
        await self._publish("orders", f"new {uuid4()}")
        found["the gates, for a job that comes"] = await self._explained("admit", {"queue": "orders", "limit": 500})
        found["a claim of a queue with keys"], token = await self._claim("orders")
        leases = await self._of.once("claim_leases", {"queue": "orders", "tokens": [token]})
        handles = [Handle("orders", row.id, row.token, row.place) for row in leases]
        await settling.settle(self._of, [AckItem(handle, Complete(None)) for handle in handles])
        found["the gates, for a job that completed"] = await self._explained("admit", {"queue": "orders", "limit": 500})
        return found

    async def _claim(self, queue: str) -> tuple[int, Any]:
        want = claiming.Want(self._session, 1, uuid4(), 1)
        params = claiming.claim_params(self._replica, queue, [want], claiming.EVERYTHING)
        return await self._explained("claim", params), want.token

    async def _explained(self, statement: str, params: dict[str, Any]) -> int:
        async with self._of.connection() as connection:
            cursor = connection.cursor(row_factory=tuple_row)
            text = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + self._of.statement(statement)
            [[explained]] = await (await cursor.execute(text, params)).fetchall()
            plan = (json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"]
            return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def keys(
    dsn: str, *, full: bool = False, ready: int = 100_000, future: int = 100_000, keys: int = 5_000, each: int = 20
) -> Sequence[Finding]:
    """`each`: jobs of each key. `full`: 1,000,000 ready, 1,000,000 future, 50,000 keys."""
    sizes = (_FULL if full else {"ready": ready, "future": future, "keys": keys}) | {"each": each}
    counted = []
    for deep in (False, True):
        with database(dsn) as mine:
            async with Database(mine, pool_size=1) as of:
                place = _Place(of)
                await place.prepare()
                if deep:
                    await place.fill(**sizes)
                counted.append(await place.pages())
    note = ", ".join(f"{number:,} {kind}" for kind, number in sizes.items())
    return [
        Finding(
            f"keys, pages read by {what}",
            [counted[1][what] / counted[0][what]],
            2,
            at_least=False,
            note=f"{note}; larger trees are a page or two higher, and a step looks things up in several",
            facts={"pages, empty and deep": f"{counted[0][what]} and {counted[1][what]}"},
        )
        for what in counted[0]
    ]


if __name__ == "__main__":
    command(keys, __doc__)
