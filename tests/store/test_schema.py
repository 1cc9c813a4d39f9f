"""Migrations, the archive's days, and what people do in SQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from jobwire_server.domain.jobs import AckItem, Complete, Extend, Fail, JobState, NewJob, Progress
from jobwire_server.domain.operations import JobFilter
from jobwire_server.domain.queues import JobOptions, JobOptionsPatch, Queue
from jobwire_server.store import (
    archive,
    claiming,
    finding,
    migrate,
    publishing,
    queues,
    reading,
    sessions,
    settling,
    upkeep,
)
from jobwire_server.store.database import Database
from tests.conftest import Postgres, opened

QUEUE = Queue("work")


@pytest.fixture
async def queue(database: Database) -> Queue:
    await queues.create_queue(database, QUEUE)
    return QUEUE


@pytest.fixture
async def sql(postgres: Postgres, database: Database) -> AsyncIterator[Any]:
    """Runs statements as an application would, with our schema on its path; returns rows as dicts."""
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True, row_factory=dict_row) as connection:
        await connection.execute(f'SET search_path = "{database.schema}"'.encode())

        async def run(text: str, *params: Any) -> list[dict[str, Any]]:
            cursor = await connection.execute(text.encode(), params or None)
            return await cursor.fetchall() if cursor.description else []

        yield run


async def claim_all(database: Database, count: int = 100) -> list[claiming.Claimed]:
    replica, session = uuid4(), uuid4()
    await sessions.open_session(database, replica, session, sessions.SessionTerms("w", ("work",), count, 60_000))
    return await claiming.claim(database, replica, "work", [claiming.Want(session, 1, uuid4(), count)])


async def finish_all(database: Database) -> None:
    claimed = await claim_all(database)
    await settling.settle(database, [AckItem(job.delivery.handle, Complete('{"ok":true}')) for job in claimed])


async def test_ten_servers_at_once_on_an_empty_database(postgres: Postgres, schema: str) -> None:
    mark = postgres.log_size()
    names = [f"queue-{n}" for n in range(10)]

    async def start() -> list[bool]:
        async with opened(postgres.served, schema) as database:
            return [await queues.create_queue(database, Queue(name)) for name in names]

    created = await asyncio.gather(*(start() for _ in range(10)))
    assert [sum(column) for column in zip(*created, strict=True)] == [1] * 10
    async with Database(postgres.served, schema) as database:
        assert [q.name for q in await queues.list_queues(database, None, 100)] == names
    assert postgres.errors(mark) == []


async def test_check_tells_and_changes_nothing(postgres: Postgres, schema: str) -> None:
    async with Database(postgres.served, schema) as database:
        state = await migrate.check(database)
        assert state.applied == 0 and state.pending and not state.unknown
        assert await migrate.check(database) == state
        assert await migrate.migrate(database) == state.pending
        assert (await migrate.check(database)).pending == ()
        assert await migrate.migrate(database) == ()
        async with database.connection() as connection:
            await connection.execute(
                f"INSERT INTO \"{schema}\".migration (number, name, serves_from) VALUES (999, 'far', 999)".encode()
            )
        assert (await migrate.check(database)).unknown


@pytest.mark.parametrize("name", ["_x1", "select", "a" * 63])
async def test_the_schema_may_have_any_plain_name(postgres: Postgres, name: str) -> None:
    async with opened(postgres.served, name) as database:
        await queues.create_queue(database, QUEUE)
        await publishing.publish(database, QUEUE, [NewJob(uuid4(), "1")])
        async with database.connection() as connection:
            await connection.execute(f'DROP SCHEMA "{name}" CASCADE'.encode())


@pytest.mark.parametrize("name", ["", "1x", "a-b", "a.b", 'a"b', "a" * 64, "ä", "Mixed", "pg_own"])
def test_other_schema_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="schema"):
        Database("", name)


async def test_commits_are_durable_whatever_the_role_says(postgres: Postgres, schema: str) -> None:
    for given, kept in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        dsn = psycopg.conninfo.make_conninfo(postgres.dsn, options=f"-c synchronous_commit={given}")
        async with Database(dsn, schema) as database, database.connection() as connection:
            row = await (await connection.execute("SHOW synchronous_commit")).fetchone()
            assert row is not None and row.synchronous_commit == kept


async def test_any_mix_of_retentions_lands_on_its_day(database: Database, queue: Queue, sql: Any) -> None:
    days = (0, 1, 7, 100, 3650)
    jobs = [NewJob(uuid4(), "1", options=JobOptionsPatch(retention_ms=day * 86_400_000)) for day in days]
    await publishing.publish(database, queue, jobs)
    await finish_all(database)
    rows = await sql("SELECT id, drop_on - (finished_at AT TIME ZONE 'UTC')::date AS days FROM archive")
    assert {row["id"]: row["days"] for row in rows} == {job.id: day + 1 for job, day in zip(jobs, days, strict=True)}


@pytest.mark.parametrize("how", ["complete", "fail", "cancel waiting", "cancel running"])
async def test_every_column_survives_the_move_to_the_archive(
    database: Database, queue: Queue, sql: Any, how: str
) -> None:
    options = JobOptionsPatch(5, 11, False, 12_000, 13_000, 14_000)
    job = NewJob(uuid4(), '{"n":1}', priority=7, headers='{"a":"b"}', options=options)
    await publishing.publish(database, queue, [job])
    [first] = await claim_all(database, 1)
    progress = Extend(None, Progress(0.5, "half"))
    await settling.settle(database, [AckItem(first.delivery.handle, progress)])
    await settling.settle(database, [AckItem(first.delivery.handle, Fail("E", "m", "t", retry_ms=0))])
    if how != "cancel waiting":
        [second] = await claim_all(database, 1)
    [live] = await sql("SELECT * FROM live_job")
    if how == "complete":
        await settling.settle(database, [AckItem(second.delivery.handle, Complete('"out"'))])
    elif how == "fail":
        await settling.settle(database, [AckItem(second.delivery.handle, Fail("E", "last", "t", permanent=True))])
    else:
        await settling.cancel(database, "work", [job.id], 0)
        if how == "cancel running":
            await upkeep.check_limits(database, 0)
    [archived] = await sql("SELECT * FROM archive")
    assert await sql("SELECT * FROM live_job") == []
    changed = {
        "complete": {"started_at"},
        "fail": {"started_at", "errors"},
        "cancel waiting": {"attempt"},  # the delivery that would have come next
        "cancel running": {"started_at"},
    }[how]
    common = live.keys() & archived.keys() - changed
    assert {name: archived[name] for name in common} == {name: live[name] for name in common}
    assert live.keys() - archived.keys() == {
        "expires_at",
        "settled_token",
        "stop_at",
        "stop_reason",
        "gated",
        "waits_since",
    }
    assert len(archived["errors"]) == (2 if how == "fail" else 1)
    states = {"complete": JobState.COMPLETED, "fail": JobState.FAILED}
    assert archived["state"] == states.get(how, JobState.CANCELLED)


async def test_a_day_is_dropped_when_it_has_come_and_a_reader_does_not_stop_acks(
    database: Database, queue: Queue, postgres: Postgres, sql: Any
) -> None:
    keep, gone = NewJob(uuid4(), "1"), NewJob(uuid4(), "2", options=JobOptionsPatch(retention_ms=0))
    await publishing.publish(database, queue, [keep, gone])
    await finish_all(database)
    today = await archive.make_days_ahead(database)
    assert await archive.drop_past_days(database, today) == []
    tomorrow = today + timedelta(days=1)
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as analyst:
        await analyst.execute(f'SELECT count(*) FROM "{database.schema}".archive'.encode())
        dropping = asyncio.create_task(archive.drop_past_days(database, tomorrow))
        await publishing.publish(database, queue, [NewJob(uuid4(), "3")])
        await finish_all(database)
        await analyst.rollback()
    dropped = await dropping or await archive.drop_past_days(database, tomorrow)
    assert tomorrow in dropped
    assert await reading.get_job(database, ["work"], gone.id) is None
    assert (await reading.get_job(database, ["work"], keep.id)) is not None
    await archive.make_days_ahead(database)


async def test_the_job_view_answers_as_pg_bosss_table(database: Database, queue: Queue, sql: Any) -> None:
    await publishing.publish(database, queue, [NewJob(uuid4(), '{"n":1}', priority=3), NewJob(uuid4(), "2")])
    await publishing.publish(database, queue, [NewJob(uuid4(), "3", start_in_ms=60_000)])
    [first] = await claim_all(database, 1)
    assert (
        await sql("SELECT data->>'n' AS n, state, priority FROM job WHERE name = 'work' ORDER BY created_on, id") != []
    )
    states = {str(row["data"]): row["state"] for row in await sql("SELECT data, state FROM job")}
    assert states == {"{'n': 1}": "active", "2": "created", "3": "created"}
    await settling.settle(database, [AckItem(first.delivery.handle, Complete('{"out":[1]}'))])
    [row] = await sql(
        "SELECT id, name, data, output, created_on, started_on, completed_on, retry_count, retry_limit, expire_seconds"
        " FROM job WHERE state = 'completed'"
    )
    assert (row["id"], row["output"], row["expire_seconds"]) == (first.delivery.handle.job_id, {"out": [1]}, 900)
    assert row["created_on"] <= row["started_on"] <= row["completed_on"]


async def test_sql_publish_joins_the_callers_transaction(database: Database, queue: Queue, postgres: Postgres) -> None:
    publish = f'SELECT "{database.schema}".publish(%s, %s, %s)'.encode()
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
        await connection.execute(publish, ["work", '{"lost": true}', "{}"])
        await connection.rollback()
        options = {
            "priority": 4,
            "retry_limit": 7,
            "expire_in": 1.5,
            "headers": {"traceparent": "00-x"},
            "id": str(uuid4()),
        }
        await connection.execute(publish, ["work", '{"kept": true}', json.dumps(options)])
        await connection.execute(publish, ["work", '{"kept": true}', json.dumps(options)])
        await connection.execute(publish, ["work", "1", '{"start_in": 3600}'])
        await connection.commit()
    job = await reading.get_job(database, ["work"], UUID(options["id"]))
    assert (
        job is not None
        and json.loads(job.data) == {"kept": True}
        and json.loads(job.headers or "") == {"traceparent": "00-x"}
    )
    assert (job.priority, job.options) == (4, JobOptions(retry_limit=7, expire_ms=1_500))
    counts = (await queues.count_jobs(database, ["work"]))["work"]
    assert (counts.ready, counts.scheduled) == (1, 1)
    await finish_all(database)
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection:
        await connection.execute(publish, ["work", '{"kept": true}', json.dumps(options)])
    assert (await queues.count_jobs(database, ["work"]))["work"].ready == 0


@pytest.mark.parametrize(
    ("queue_name", "data", "options", "says"),
    [
        ("missing", "1", "{}", "does not exist"),
        ("work", "1", '{"retries": 3}', "unknown options: retries"),
        ("work", "1", '{"retry_limit": -1}', "out of its range"),
        ("work", "1", '{"priority": 99999}', "out of its range"),
        ("work", json.dumps("x" * 70_000), "{}", "the queue allows 65536"),
    ],
)
async def test_sql_publish_refuses_with_reasons(
    database: Database, queue: Queue, postgres: Postgres, queue_name: str, data: str, options: str, says: str
) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection:
        with pytest.raises(psycopg.Error, match=says):
            await connection.execute(
                f'SELECT "{database.schema}".publish(%s, %s, %s)'.encode(), [queue_name, data, options]
            )


async def test_sql_publish_is_for_roles_that_were_granted_it(
    database: Database, queue: Queue, postgres: Postgres
) -> None:
    role = f"app_{uuid4().hex[:8]}"
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection:
        await connection.execute(f'CREATE ROLE {role}; GRANT USAGE ON SCHEMA "{database.schema}" TO {role}'.encode())
        try:
            await connection.execute(f"SET ROLE {role}".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(f'SELECT "{database.schema}".publish(%s, %s)'.encode(), ["work", "1"])
            await connection.execute("RESET ROLE")
            await connection.execute(
                f'GRANT EXECUTE ON FUNCTION "{database.schema}".publish(text, jsonb, jsonb) TO {role}'.encode()
            )
            await connection.execute(f"SET ROLE {role}".encode())
            await connection.execute(f'SELECT "{database.schema}".publish(%s, %s)'.encode(), ["work", "1"])
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(f'SELECT * FROM "{database.schema}".live_job'.encode())
        finally:
            await connection.execute("RESET ROLE")
            await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


async def test_a_claim_reads_as_little_with_a_long_past_as_without(database: Database, queue: Queue, sql: Any) -> None:
    """Ten thousand finished and ten thousand future jobs: the claim touches a few pages, by the index alone."""
    await publishing.publish(database, queue, [NewJob(uuid4(), "0", start_in_ms=3_600_000) for _ in range(1_000)])
    await sql(
        "INSERT INTO scheduled SELECT queue, seq + 100000 + n * 1000, rank, gen_random_uuid(), suspect, start_after"
        " FROM scheduled, generate_series(1, 9) n"
    )
    for _ in range(10):
        await publishing.publish(database, queue, [NewJob(uuid4(), "0") for _ in range(1_000)])
        for _ in range(10):
            await finish_all(database)
    await publishing.publish(database, queue, [NewJob(uuid4(), "0") for _ in range(50)])
    [row] = await sql("SELECT count(*) AS n FROM archive")
    assert row["n"] == 10_000
    await sql("VACUUM ready")
    plan = await sql(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT id FROM ready"
        " WHERE queue = 'work' AND (rank, seq) > (-2147483648, -1) ORDER BY rank, seq LIMIT 10"
    )
    top = plan[0]["QUERY PLAN"][0]["Plan"]
    assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < 50
    assert len(await claim_all(database, 10)) == 10


@pytest.mark.usefixtures("direct")
async def test_a_claim_takes_no_more_than_asked_whatever_the_plan(database: Database, queue: Queue) -> None:
    await publishing.publish(database, queue, [NewJob(uuid4(), str(n)) for n in range(100)])
    replica = uuid4()
    wants = []
    for count in (3, 1, 5):
        session = uuid4()
        await sessions.open_session(database, replica, session, sessions.SessionTerms("w", ("work",), 10, 60_000))
        wants.append(claiming.Want(session, 1, uuid4(), count))
    stranger = claiming.Want(uuid4(), 1, uuid4(), 50)
    outdated = claiming.Want(wants[0].session_id, 9, uuid4(), 50)
    got: set[UUID] = set()
    for settings in ("enable_nestloop = on", "enable_nestloop = off", "enable_hashjoin = on", "enable_mergejoin = on"):
        async with database.connection() as connection:
            await connection.execute(f"SET {settings}".encode())
        wants = [claiming.Want(want.session_id, 1, uuid4(), want.count) for want in wants]
        claimed = await claiming.claim(database, replica, "work", [*wants, stranger, outdated])
        by_token = {want.token: [job for job in claimed if job.delivery.handle.token == want.token] for want in wants}
        assert [len(by_token[want.token]) for want in wants] == [3, 1, 5] and len(claimed) == 9
        assert [job.seq for job in claimed] == sorted(job.seq for job in claimed)
        for jobs in by_token.values():
            assert [job.delivery.handle.place for job in jobs] == list(range(1, len(jobs) + 1))
        ids = {job.delivery.handle.job_id for job in claimed}
        assert not ids & got
        got |= ids
        # Whatever lost its ticket is in a claim.
        counts = (await queues.count_jobs(database, ["work"]))["work"]
        assert (counts.ready, counts.active) == (100 - len(got), len(got))


async def test_a_suspect_is_claimed_alone_and_never_among_others(database: Database, queue: Queue) -> None:
    await publishing.publish(database, queue, [NewJob(uuid4(), "0") for _ in range(3)])
    for suspects in (False, True):
        assert await claiming.waiting(database, "work") == (True, False)
        [first] = await claim_all(database, 1)
        await settling.give_back(database, [settling.Ending(first.delivery.handle, lost=True)])
        assert await claiming.waiting(database, "work") == (True, suspects)
    suspect = first.delivery.handle.job_id
    claimed = await claim_all(database)
    assert len(claimed) == 2 and suspect not in {job.delivery.handle.job_id for job in claimed}
    replica, session = uuid4(), uuid4()
    await sessions.open_session(database, replica, session, sessions.SessionTerms("w", ("work",), 5, 60_000))
    outdated = claiming.Want(session, 9, uuid4(), 5)
    assert await claiming.claim_suspect(database, replica, "work", outdated) == []
    want = claiming.Want(session, 1, uuid4(), 5)
    alone = await claiming.claim_suspect(database, replica, "work", want)
    assert [(job.delivery.handle.job_id, job.delivery.suspect, job.delivery.attempt) for job in alone] == [
        (suspect, True, 3)
    ]
    assert await claiming.claim_suspect(database, replica, "work", claiming.Want(session, 1, uuid4(), 5)) == []


async def test_states_as_the_store_tells_them(database: Database, queue: Queue) -> None:
    await publishing.publish(database, queue, [NewJob(uuid4(), str(n)) for n in range(3)])
    await claim_all(database, 1)
    async with database.reading() as connection:
        everything = await finding.find(database, connection, "work", JobFilter(), None, 100, 10)
        created = JobFilter(states=frozenset({JobState.CREATED}))
        page = await finding.find(database, connection, "work", created, None, 100, 1)
        rest = await finding.find(database, connection, "work", created, page.ended, 100, 10)
    assert sorted(state for _, state in everything.found) == [JobState.CREATED, JobState.CREATED, JobState.ACTIVE]
    assert len(page.found) == len(rest.found) == 1
    assert page.found > rest.found
    assert (everything.ended, rest.ended) == (None, None)
