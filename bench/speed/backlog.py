"""Jobs by the million, written into a server's tables with plain SQL, as publishing and finishing would leave them.

Ids are in the order of time, as the server's own are: finished jobs first, then those that wait, then future ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg

from bench.arena import Arena
from bench.speed.load import PAYLOAD_BYTES, queue_name
from jobwire_server.store.statements import in_schema

_AT_ONCE = 250_000

_DRAFT = """
CREATE TEMPORARY TABLE IF NOT EXISTS draft (LIKE jobwire.live_job INCLUDING DEFAULTS);
TRUNCATE draft
"""
_MAKE = """
INSERT INTO draft (queue, id, seq, rank, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms,
    retention_ms, start_after, data)
SELECT q.name, (lpad(to_hex(%(first)s + n), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
        || substr(md5(n::text), 4, 15))::uuid,
    nextval('jobwire.job_seq'), 0, q.retry_limit, q.retry_delay_ms, q.retry_backoff, q.retry_delay_max_ms, q.expire_ms,
    q.retention_ms, now() + %(ahead)s * interval '1 second' + n * interval '1 millisecond',
    rpad('{"number":' || n || ',"text":"', %(bytes)s - 2, 'x') || '"}'
FROM jobwire.queue q, generate_series(1, %(jobs)s) AS n WHERE q.name = %(queue)s
"""
_STORE = {
    "finished": """
        INSERT INTO jobwire.archive (queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit,
            retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, created_at, start_after,
            started_at, finished_at, drop_on, state, token, worker, progress_count, data)
        SELECT queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit, retry_delay_ms,
            retry_backoff, retry_delay_max_ms, expire_ms, retention_ms, created_at, start_after, created_at, now(),
            jobwire.drop_day(retention_ms), 4, id, 'load', 0, data
        FROM draft
    """,
    "waiting": """
        INSERT INTO jobwire.live_job SELECT * FROM draft;
        INSERT INTO jobwire.ready (queue, rank, seq, id) SELECT queue, rank, seq, id FROM draft
    """,
    "future": """
        INSERT INTO jobwire.live_job SELECT * FROM draft;
        INSERT INTO jobwire.scheduled (queue, rank, seq, id, start_after)
        SELECT queue, rank, seq, id, start_after FROM draft
    """,
}
_AHEAD = {"finished": 0, "waiting": 0, "future": 86_400}
_TABLES = ("live_job", "ready", "scheduled", "archive")


class Backlog:
    """Fills the queue of a server that runs; the queue must exist."""

    def __init__(self, place: Arena) -> None:
        self._place = place
        self._next_id = time.time_ns() // 1_000_000 - 1_000_000_000

    def fill(self, **kinds: int) -> None:
        """Adds so many `waiting`, `future` and `finished` jobs.

        PostgreSQL tidies up at the end, so that no run pays for what was filled in.
        """
        with psycopg.connect(self._place.dsn, autocommit=True) as connection:
            for kind in (kind for kind in _STORE if kind in kinds):
                for jobs in _parts(kinds[kind]):
                    given = {
                        "jobs": jobs,
                        "first": self._next_id,
                        "ahead": _AHEAD[kind],
                        "queue": queue_name(0),
                        "bytes": PAYLOAD_BYTES,
                    }
                    with connection.transaction():
                        connection.execute(self._named(_DRAFT))
                        connection.execute(self._named(_MAKE), given)
                        connection.execute(self._named(_STORE[kind]))
                    self._next_id += jobs
            for table in _TABLES:
                connection.execute(self._named(f"VACUUM (ANALYZE) jobwire.{table}"))
            connection.execute("CHECKPOINT")

    def _named(self, text: str) -> bytes:
        return in_schema(text, self._place.schema).encode()


def _parts(jobs: int) -> Iterator[int]:
    while jobs > 0:
        yield min(jobs, _AT_ONCE)
        jobs -= _AT_ONCE
