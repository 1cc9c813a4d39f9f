"""What keys, groups and older servers leave behind is swept up, and nothing that is needed still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from jobwire_server.broker.sweeper import sweep
from jobwire_server.domain.jobs import AckItem, Complete, Fail, Labels, NewJob
from jobwire_server.domain.queues import JobOptions, Policy, Queue, QueueLimits
from jobwire_server.store import claiming, gates, publishing, queues, sessions, settling, sweeping
from jobwire_server.store.database import Database
from tests.conftest import Postgres


@pytest.fixture
async def sql(postgres: Postgres, database: Database) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True, row_factory=dict_row) as connection:
        await connection.execute(f'SET search_path = "{database.schema}"'.encode())

        async def run(text: str, *params: Any) -> list[dict[str, Any]]:
            cursor = await connection.execute(text.encode(), params or None)
            return await cursor.fetchall() if cursor.description else []

        yield run


async def make(database: Database, **changes: Any) -> Queue:
    await queues.create_queue(database, Queue("work", **changes))
    return (await queues.get_queues(database, ["work"]))["work"]


async def put(database: Database, queue: Queue, *labels: Labels) -> list[UUID]:
    jobs = [NewJob(uuid4(), "1", labels=each) for each in labels]
    await publishing.publish_keyed(database, queue, jobs)
    return [job.id for job in jobs]


async def claim_all(database: Database, count: int = 100) -> list[settling.Handle]:
    replica, session = uuid4(), uuid4()
    await sessions.open_session(database, replica, session, sessions.SessionTerms("w", ("work",), count, 60_000))
    claimed = await claiming.claim(database, replica, "work", [claiming.Want(session, 1, uuid4(), count)])
    return [job.delivery.handle for job in claimed]


async def swept(database: Database) -> list[str]:
    told: list[str] = []
    await sweep(database, told.append)
    return told


async def test_guards_go_when_they_keep_nobody_away(database: Database, sql: Any) -> None:
    queue = await make(database, policy=Policy.EXCLUSIVE)
    await put(database, queue, *(Labels(key=str(n)) for n in range(5)))
    await put(database, queue, Labels(key="short", unique_ms=1), Labels(key="long", unique_ms=600_000))
    handles = await claim_all(database)
    await settling.settle(database, [AckItem(handle, Complete(None)) for handle in handles[:4]])
    await swept(database)
    left = {(row["kind"], row["key"]) for row in await sql("SELECT kind, key FROM guard")}
    keys = {str(row["key"]) for row in await sql("SELECT key FROM live_job")}
    assert left == {(1, key) for key in keys} | {(3, "long")}
    # Whoever comes meets what lives still, and nothing else.
    again = await publishing.publish_keyed(
        database, queue, [NewJob(uuid4(), "1", labels=Labels(key=str(n))) for n in range(5)]
    )
    assert [result.created for result in again.results] == [str(n) not in keys for n in range(5)]


async def test_guards_are_swept_in_steps(database: Database, sql: Any) -> None:
    queue = await make(database, policy=Policy.EXCLUSIVE)
    await put(database, queue, *(Labels(key=str(n)) for n in range(10)))
    handles = await claim_all(database)
    await settling.settle(database, [AckItem(handle, Complete(None)) for handle in handles[:7]])
    place: sweeping.GuardPlace | None = sweeping.FIRST_GUARD
    steps, gone = 0, 0
    while place is not None:
        place, went = await sweeping.sweep_guards(database, place, limit=3)
        assert went <= 3
        steps, gone = steps + 1, gone + went
    assert (steps, gone) == (4, 7) and len(await sql("SELECT 1 AS one FROM guard")) == 3


async def test_publishing_beside_the_sweep_never_lets_two_of_a_key_in(database: Database, sql: Any) -> None:
    queue = await make(database, policy=Policy.EXCLUSIVE)
    stop = asyncio.Event()

    async def sweeping_on() -> None:
        while not stop.is_set():
            await sweeping.sweep_guards(database)

    async def publishing_on() -> None:
        for _ in range(60):
            await put(database, queue, Labels(key="a"), Labels(key="b"))
            counts = await sql("SELECT key, count(*) AS n FROM live_job GROUP BY key")
            assert all(row["n"] == 1 for row in counts)
            handles = await claim_all(database)
            await settling.settle(database, [AckItem(handle, Complete(None)) for handle in handles])

    sweeper = asyncio.create_task(sweeping_on())
    try:
        await asyncio.gather(publishing_on(), publishing_on())
    finally:
        stop.set()
        await sweeper


async def test_turns_go_and_the_order_of_those_to_come_stays(database: Database, sql: Any) -> None:
    queue = await make(database, fair=True)
    await put(database, queue, *(Labels(group=f"g{n % 20}") for n in range(60)))
    await gates.admit(database, "work")
    await swept(database)
    assert len(await sql("SELECT 1 AS one FROM turn")) == 20  # its jobs' places have the groups' numbers
    handles = await claim_all(database)
    await settling.settle(database, [AckItem(handle, Complete(None)) for handle in handles[:50]])
    before = max(row["turn"] for row in await sql("SELECT turn FROM turn"))
    await settling.settle(database, [AckItem(handle, Complete(None)) for handle in handles[50:]])
    await gates.admit(database, "work")
    await swept(database)
    assert await sql("SELECT 1 AS one FROM turn") == []
    await put(database, queue, Labels(group="new"), Labels(group="g1"))
    await gates.admit(database, "work")
    turns = [row["turn"] for row in await sql("SELECT (seq - first_turn()) >> 24 AS turn FROM ready")]
    assert turns == [before + 1] * 2


async def test_a_slot_that_an_older_server_left_is_given_back(database: Database, sql: Any) -> None:
    queue = await make(database, policy=Policy.SINGLETON)
    first, second = await put(database, queue, Labels(key="k"), Labels(key="k"))
    await gates.admit(database, "work")
    [handle] = await claim_all(database)
    assert await swept(database) == []
    await settling.settle(database, [AckItem(handle, Complete(None))])
    assert handle.job_id == first
    await sql("DELETE FROM gate_event")  # an older server tells of nothing
    assert await swept(database) == ["work"]
    assert await swept(database) == []  # it is told of once
    await gates.admit(database, "work")
    assert [claimed.job_id for claimed in await claim_all(database)] == [second]


async def test_a_failed_job_holds_its_key_through_the_sweep(database: Database, sql: Any) -> None:
    queue = await make(database, policy=Policy.KEY_STRICT_FIFO, options=JobOptions(retry_limit=0))
    first, _ = await put(database, queue, Labels(key="k"), Labels(key="k"))
    await gates.admit(database, "work")
    [handle] = await claim_all(database)
    await settling.settle(database, [AckItem(handle, Fail("E", "", ""))])
    assert await swept(database) == []  # the gates know of it, and will see to it
    await sql("DELETE FROM gate_event")  # an older server tells of nothing
    assert await swept(database) == ["work"]
    await gates.admit(database, "work")
    assert await sql("SELECT id, failed FROM slot") == [{"id": first, "failed": True}]
    assert await swept(database) == []
    assert await claim_all(database) == []


async def test_jobs_that_waited_are_looked_at_in_steps(database: Database, sql: Any) -> None:
    queue = await make(database, waiting_ms=1_000, limits=QueueLimits(max_active=5))
    await put(database, queue, *(Labels(key=str(n)) for n in range(10)))
    await sql("UPDATE live_job SET start_after = start_after - interval '1 hour' WHERE key::int < 7")
    after: UUID | None = None
    cancelled: list[UUID] = []
    steps = 0
    while True:
        found = await sweeping.cancel_overdue(database, "work", after, window=3)
        assert len(found.ids) <= 3
        cancelled += found.ids
        steps += 1
        after = found.upto
        if after is None:
            break
    assert len(cancelled) == 7 and steps == 4
    assert {row["state"] for row in await sql("SELECT state FROM archive")} == {5}
    assert len(await sql("SELECT 1 AS one FROM ready")) == 3


async def test_a_pause_before_a_retry_is_no_waiting(database: Database, sql: Any) -> None:
    queue = await make(database, waiting_ms=60_000)
    await put(database, queue, Labels(key="k"))
    [handle] = await claim_all(database)
    await settling.settle(database, [AckItem(handle, Fail("E", "", "", retry_ms=600_000))])
    await sql("UPDATE live_job SET start_after = start_after - interval '1 hour'")
    assert (await sweeping.cancel_overdue(database, "work", None)).ids == []
    await sql("UPDATE live_job SET waits_since = waits_since - interval '1 hour'")
    assert (await sweeping.cancel_overdue(database, "work", None)).ids == [handle.job_id]
    [row] = await sql("SELECT state, attempt, errors FROM archive")
    assert (row["state"], row["attempt"]) == (5, 1)
    assert [error["type"] for error in row["errors"]] == ["E", "WAITED_TOO_LONG"]
