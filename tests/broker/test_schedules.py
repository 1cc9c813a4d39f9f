"""Schedules: one job for each due time, with several replicas, through crashes, and whatever hinders."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from jobwire_server.broker.broker import Broker
from jobwire_server.domain.cron import Cron
from jobwire_server.domain.errors import (
    DatabaseUnavailable,
    InvalidArgument,
    QueueFull,
    QueueNotFound,
    ScheduleNotFound,
)
from jobwire_server.domain.jobs import Labels, NewJob, NotCreated
from jobwire_server.domain.queues import JobOptionsPatch, Queue, QueuePatch
from jobwire_server.domain.schedules import Every, MissedRuns, Once, ScheduleSpec, ScheduleState, Timing
from tests.conftest import Postgres

from .conftest import publish

Replica = Callable[..., Awaitable[Broker]]
Sql = Callable[..., Awaitable[list[dict[str, Any]]]]

NEVER = timedelta(days=36_500)
SECONDLY = Cron("* * * * * *", "UTC")


@pytest.fixture
async def sql(postgres: Postgres, schema: str) -> AsyncIterator[Sql]:
    """Looks at the schema and changes it, past the replicas."""
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True, row_factory=dict_row) as connection:
        await connection.execute(f'SET search_path = "{schema}"'.encode())

        async def run(text: str, *params: object) -> list[dict[str, Any]]:
            cursor = await connection.execute(text.encode(), params or None)
            return await cursor.fetchall() if cursor.description else []

        yield run


def spec(timing: Timing, name: str = "tick", **changes: Any) -> ScheduleSpec:
    return ScheduleSpec(name, "work", NewJob(UUID(int=0), '{"n":1}'), timing, **changes)


def every(seconds: float) -> Every:
    return Every(round(seconds * 1_000), datetime(2000, 1, 1, tzinfo=UTC))


async def dues(sql: Sql, name: str = "tick") -> list[datetime]:
    """The due times for which there are jobs, in order."""
    rows = await sql("SELECT headers::jsonb AS headers FROM job_record")
    mine = [row["headers"] for row in rows if row["headers"] and row["headers"]["jobwire-schedule"] == name]
    return sorted(datetime.fromisoformat(headers["jobwire-due-time"]) for headers in mine)


async def fall_behind(sql: Sql, seconds: float) -> datetime:
    """As if no replica had run for so long; returns what would have been due first, a whole second."""
    [row] = await sql(
        "WITH due AS (SELECT date_trunc('second', clock_timestamp() - %s * interval '1 second') AS at)"
        " UPDATE schedule SET next_run_at = at, look_at = at, anchor = at - every_ms * interval '1 ms'"
        " FROM due RETURNING next_run_at",
        seconds,
    )
    due: datetime = row["next_run_at"]
    return due


async def all_have_their_turn(broker: Broker) -> None:
    """Nothing is due any more. The broker's own look, which a change wakes, may have some of it in hand."""
    async with asyncio.timeout(60):
        while not await broker.schedules.run_due():
            await asyncio.sleep(0.02)


async def found(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Waits until there is something, and returns it."""
    async with asyncio.timeout(60):
        while not (value := await condition()):
            await asyncio.sleep(0.02)
    return value


async def test_a_due_time_has_its_job(broker: Broker, sql: Sql) -> None:
    job = NewJob(UUID(int=0), '{"a":1}', priority=7, headers='{"h":"v"}', options=JobOptionsPatch(retry_limit=9))
    made, created = await broker.schedules.put(replace(spec(SECONDLY), job=job))
    assert created and made.state is ScheduleState.ACTIVE and made.next_run_at is not None
    assert made.spec == replace(spec(SECONDLY), job=job)
    await found(lambda: dues(sql))
    assert (await dues(sql))[0] == made.next_run_at
    stored = await broker.get_job("work", made.job_id(made.next_run_at))
    assert (stored.data, stored.priority, stored.options.retry_limit) == ('{"a":1}', 7, 9)
    assert stored.created_at >= made.next_run_at
    assert '"h":"v"' in stored.headers and '"jobwire-schedule":"tick"' in stored.headers
    now = await broker.schedules.get("tick")
    assert now.runs >= 1 and now.last_run_at >= now.last_due_at >= made.next_run_at
    assert now.last_job_id is not None and not now.last_error


async def test_each_due_time_once_with_replicas_that_all_believe_it_is_theirs(replica: Replica, sql: Sql) -> None:
    """Round after round the same due rows are laid before four replicas at the same moment."""
    brokers = [await replica() for _ in range(4)]
    names = [f"s{n}" for n in range(8)]
    for name in names:
        await brokers[0].schedules.put(spec(every(86_400), name, missed=MissedRuns.ALL))
    expected: Counter[tuple[str, datetime]] = Counter()
    for _ in range(25):
        rows = await sql(
            "WITH due AS (SELECT clock_timestamp() AS at) UPDATE schedule"
            " SET next_run_at = at, look_at = at, anchor = at - every_ms * interval '1 ms'"
            " FROM due RETURNING name, next_run_at"
        )
        expected.update((row["name"], row["next_run_at"]) for row in rows)
        await asyncio.gather(*(broker.schedules.run_due() for broker in brokers))
        await found(lambda: sql("SELECT 1 AS done FROM schedule HAVING bool_and(next_run_at > clock_timestamp())"))
    made = Counter([(name, due) for name in names for due in await dues(sql, name)])
    assert made == expected
    assert sum(broker.stats().counters.get("schedule_runs", 0) for broker in brokers) == expected.total()


async def test_a_turn_that_was_read_long_ago_is_not_had_again(replica: Replica, sql: Sql) -> None:
    """A replica stands still between its look and its turn, until nobody knows the job's id any more."""
    broker = await replica(poll_interval_ms=60_000)
    await broker.schedules.put(spec(every(86_400)))
    await fall_behind(sql, 1)
    seen = await broker.schedules.get("tick")
    await broker.schedules.run_due()
    assert len(await sql("DELETE FROM live_job RETURNING id")) == 1
    await sql("DELETE FROM ready")
    assert not await broker.schedules._turn(seen, datetime.now(UTC))
    assert await sql("SELECT 1 FROM live_job") == []


async def test_a_turn_before_its_time_is_refused_by_the_database(broker: Broker, sql: Sql) -> None:
    """As a replica would try to have it whose clock is ahead."""
    made, _ = await broker.schedules.put(spec(every(600)))
    assert not await broker.schedules._turn(made, made.next_run_at + timedelta(seconds=1))
    assert await dues(sql) == []
    assert (await broker.schedules.get("tick")).next_run_at == made.next_run_at


async def test_a_crash_between_the_two_steps_leaves_neither(replica: Replica, sql: Sql, postgres: Postgres) -> None:
    """The connection is lost when the schedule has moved and the job is not stored yet."""
    broker = await replica(poll_interval_ms=60_000)
    await sql("CREATE TABLE crash (n int)")
    await sql(
        "CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF EXISTS (SELECT FROM crash) THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN new; END $$"
    )
    await sql(f"ALTER FUNCTION crash() SET search_path = {(await sql('SELECT current_schema() AS s'))[0]['s']}")
    await sql("CREATE TRIGGER crash BEFORE INSERT ON live_job FOR EACH ROW EXECUTE FUNCTION crash()")
    await broker.schedules.put(spec(every(86_400)))
    await sql("INSERT INTO crash VALUES (1)")
    await fall_behind(sql, 1)
    [before] = await sql("SELECT * FROM schedule")
    with pytest.raises(DatabaseUnavailable):
        await broker.schedules.run_due()
    assert await sql("SELECT * FROM schedule") == [before] and await dues(sql) == []
    await sql("DELETE FROM crash")
    await broker.schedules.run_due()
    assert len(await dues(sql)) == 1


async def test_an_answer_that_is_lost_is_no_second_run(
    replica: Replica, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await replica(poll_interval_ms=60_000)
    await broker.schedules.put(spec(every(86_400)))
    await fall_behind(sql, 1)
    publish_if = broker._publisher.publish_if

    async def lost(*args: Any) -> None:
        await publish_if(*args)
        raise DatabaseUnavailable

    monkeypatch.setattr(broker._publisher, "publish_if", lost)
    with pytest.raises(DatabaseUnavailable):
        await broker.schedules.run_due()
    monkeypatch.undo()
    await broker.schedules.run_due()
    assert len(await dues(sql)) == 1 and (await broker.schedules.get("tick")).runs == 1


async def test_a_replica_takes_over_what_another_was_told_of(replica: Replica, sql: Sql) -> None:
    """The other ends before the time comes; the change is found at the next look."""
    staying = await replica()
    going = await replica()
    await going.schedules.put(spec(Once(datetime.now(UTC) + timedelta(seconds=2))))
    await going.__aexit__()
    await found(lambda: dues(sql))
    ended = await staying.schedules.get("tick")
    assert ended.state is ScheduleState.ENDED and ended.runs == 1


@pytest.mark.parametrize(
    ("missed", "limit", "expected"),
    [
        (MissedRuns.SKIP, 100, 0),
        (MissedRuns.ONCE, 100, 1),
        (MissedRuns.ALL, 100, 10),
        (MissedRuns.ALL, 4, 4),
    ],
)
async def test_missed_runs(replica: Replica, sql: Sql, missed: MissedRuns, limit: int, expected: int) -> None:
    """Nothing ran for nine and a half hours of an hourly schedule, ten times of which are past."""
    broker = await replica(poll_interval_ms=60_000)
    await broker.schedules.put(spec(every(3_600), missed=missed, missed_limit=limit))
    first = await fall_behind(sql, 9.5 * 3_600)
    await all_have_their_turn(broker)
    hours = [first + timedelta(hours=n) for n in range(10)]
    assert await dues(sql) == hours[len(hours) - expected :]
    now = await broker.schedules.get("tick")
    assert (now.next_run_at, now.runs) == (first + timedelta(hours=10), expected)


async def test_more_missed_runs_than_go_into_one_transaction(replica: Replica, sql: Sql) -> None:
    broker = await replica(poll_interval_ms=60_000)
    await broker.schedules.put(spec(SECONDLY, missed=MissedRuns.ALL, missed_limit=250, tolerance_ms=1_000))
    await fall_behind(sql, 86_400)
    await all_have_their_turn(broker)
    made = await dues(sql)
    assert len(made) >= 250 and len(set(made)) == len(made)
    assert {after - before for before, after in pairwise(made)} == {timedelta(seconds=1)}


async def test_a_full_queue_puts_a_run_off(replica: Replica, sql: Sql) -> None:
    broker = await replica(poll_interval_ms=60_000)
    await broker.queues.create(Queue("work", max_depth=2))
    await publish(broker)
    await broker.schedules.put(spec(every(3_600), missed=MissedRuns.ALL))
    first = await fall_behind(sql, 5 * 3_600)
    # There is room for one of five.
    await all_have_their_turn(broker)
    full = await broker.schedules.get("tick")
    assert await dues(sql) == [first] and full.next_run_at == first + timedelta(hours=1)
    assert "has no room" in full.last_error and full.last_error_at is not None
    await broker.queues.update("work", QueuePatch(max_depth=0))
    await sql("UPDATE schedule SET look_at = clock_timestamp()")
    await all_have_their_turn(broker)
    assert len(await dues(sql)) >= 5
    assert (await broker.schedules.get("tick")).last_error == full.last_error


@pytest.mark.parametrize("how", ["deleted", "too large"])
async def test_what_cannot_be_mended_by_waiting_is_given_up(replica: Replica, sql: Sql, how: str) -> None:
    broker = await replica(poll_interval_ms=60_000)
    made, _ = await broker.schedules.put(spec(every(86_400)))
    if how == "deleted":
        await sql("DELETE FROM queue")
        broker.queues._known.clear()
    else:
        await broker.queues.update("work", QueuePatch(max_data_bytes=3))
    await fall_behind(sql, 1)
    await all_have_their_turn(broker)
    now = await broker.schedules.get("tick")
    assert {"deleted": "queue 'work' does not exist", "too large": "data: is 7 bytes"}[how] in now.last_error
    assert now.next_run_at > made.created_at + timedelta(hours=23) and now.runs == 0 and await dues(sql) == []
    assert await sql("SELECT 1 FROM queue") == [] or how != "deleted"


async def test_a_schedule_that_no_replica_here_understands_holds_up_no_other(replica: Replica, sql: Sql) -> None:
    broker = await replica(poll_interval_ms=60_000)
    await broker.schedules.put(spec(SECONDLY, "bad"))
    await broker.schedules.put(spec(SECONDLY, "good"))
    await sql("UPDATE schedule SET time_zone = 'Mars/Olympus' WHERE name = 'bad'")
    await sql("UPDATE schedule SET look_at = clock_timestamp(), next_run_at = date_trunc('second', clock_timestamp())")
    await broker.schedules.run_due()
    bad, good = await broker.schedules.get("bad"), await broker.schedules.get("good")
    assert bad.last_error.startswith("internal error") and bad.next_run_at is not None and bad.runs == 0
    assert good.runs >= 1


async def test_pause_and_resume(replica: Replica, sql: Sql) -> None:
    broker = await replica(poll_interval_ms=60_000)
    await broker.schedules.put(spec(SECONDLY, missed=MissedRuns.ALL))
    paused = await broker.schedules.pause("tick")
    assert (paused.state, paused.next_run_at) == (ScheduleState.PAUSED, None)
    again = await broker.schedules.pause("tick")
    assert again == paused
    had = await dues(sql)
    await asyncio.sleep(1.5)
    await broker.schedules.run_due()
    assert await dues(sql) == had
    replaced, created = await broker.schedules.put(spec(Cron("*/2 * * * * *", "UTC")))
    assert replaced.paused and not created and replaced.next_run_at is None
    resumed = await broker.schedules.resume("tick")
    assert resumed.state is ScheduleState.ACTIVE and resumed.next_run_at > paused.updated_at + timedelta(seconds=1)
    assert await broker.schedules.resume("tick") == resumed or (await broker.schedules.get("tick")).runs > 0


async def test_putting_it_again_loses_no_due_time_and_makes_none(replica: Replica, sql: Sql) -> None:
    """As a program does at each of its starts."""
    broker = await replica(poll_interval_ms=60_000)
    first, _ = await broker.schedules.put(spec(every(86_400)))
    again, created = await broker.schedules.put(replace(spec(every(86_400)), job=NewJob(UUID(int=0), "2")))
    assert not created and again.spec.job.data == "2"
    assert (again.id, again.next_run_at, again.spec.timing) == (first.id, first.next_run_at, first.spec.timing)
    due = await fall_behind(sql, 86_400 + 5)
    assert (await broker.schedules.put(spec(every(86_400))))[0].next_run_at == due
    other, _ = await broker.schedules.put(spec(every(3_600)))
    assert other.next_run_at == other.spec.timing.anchor + timedelta(hours=1) > first.created_at


async def test_a_one_off_may_be_put_again_when_it_is_over(replica: Replica, sql: Sql) -> None:
    broker = await replica()
    once = spec(Once(datetime.now(UTC) + timedelta(seconds=1)))
    await broker.schedules.put(once)
    await found(lambda: dues(sql))
    again, created = await broker.schedules.put(once)
    assert not created and again.state is ScheduleState.ENDED
    await asyncio.sleep(0.5)
    assert len(await dues(sql)) == 1
    with pytest.raises(InvalidArgument, match="must be to come"):
        await broker.schedules.put(spec(Once(datetime.now(UTC) - timedelta(seconds=1)), "late"))


async def test_many_put_the_same_name_at_once(replica: Replica, sql: Sql) -> None:
    brokers = [await replica(), await replica()]
    results = await asyncio.gather(*(brokers[n % 2].schedules.put(spec(every(600))) for n in range(10)))
    assert sorted(created for _, created in results) == [False] * 9 + [True]
    assert len({schedule.id for schedule, _ in results}) == len(await sql("SELECT 1 FROM schedule")) == 1


async def test_run_now(replica: Replica, sql: Sql) -> None:
    broker = await replica(poll_interval_ms=60_000)
    await broker.schedules.put(spec(every(86_400)))
    await broker.schedules.pause("tick")
    job_id = uuid4()
    results = [await broker.schedules.run("tick", job_id, repeatable=True) for _ in range(2)]
    assert [(result.id, result.created) for result in results] == [(job_id, True), (job_id, False)]
    now = await broker.schedules.get("tick")
    assert (now.runs, now.last_job_id, now.last_due_at, now.paused) == (1, job_id, None, True)
    await broker.queues.update("work", QueuePatch(max_depth=1))
    with pytest.raises(QueueFull):
        await broker.schedules.run("tick", uuid4(), repeatable=True)
    await sql("DELETE FROM queue")
    broker.queues._known.clear()
    with pytest.raises(QueueNotFound):
        await broker.schedules.run("tick", uuid4(), repeatable=True)


async def test_delete(broker: Broker, sql: Sql) -> None:
    made, _ = await broker.schedules.put(spec(SECONDLY))
    await found(lambda: dues(sql))
    await broker.schedules.delete("tick")
    had = await dues(sql)
    for call in (broker.schedules.delete, broker.schedules.get, broker.schedules.pause, broker.schedules.resume):
        with pytest.raises(ScheduleNotFound):
            await call("tick")
    await asyncio.sleep(1.5)
    assert await dues(sql) == had
    assert (await broker.schedules.put(spec(SECONDLY)))[0].id != made.id


async def test_preview(broker: Broker) -> None:
    made, _ = await broker.schedules.put(spec(every(60)))
    _, due = await broker.schedules.preview_stored("tick", 3)
    assert due == [made.next_run_at + timedelta(minutes=n) for n in range(3)]
    await broker.schedules.pause("tick")
    _, due = await broker.schedules.preview_stored("tick", 3)
    assert due == [made.next_run_at + timedelta(minutes=n) for n in range(3)]
    assert len(await broker.schedules.preview(Cron("0 3 29 2 *", "Europe/Berlin"), 10)) == 10
    with pytest.raises(InvalidArgument):
        await broker.schedules.preview(Once(datetime.now(UTC) - NEVER), 10)


async def test_a_clock_that_is_put_back_brings_no_due_time_back(replica: Replica, sql: Sql) -> None:
    """The database's clock cannot be put back here; that its last due time is ahead of it looks the same."""
    broker = await replica(poll_interval_ms=60_000)
    await broker.schedules.put(spec(every(60)))
    ahead = datetime.now(UTC) + timedelta(hours=1)
    await sql("UPDATE schedule SET last_due_at = %s", ahead)
    await broker.schedules.pause("tick")
    assert (await broker.schedules.resume("tick")).next_run_at > ahead
    assert (await broker.schedules.put(spec(SECONDLY)))[0].next_run_at > ahead


async def test_a_job_that_stands_in_the_way(replica: Replica, sql: Sql) -> None:
    """Of a job that is to be unique for an hour only the first is stored; the schedule says so, and goes on."""
    broker = await replica(poll_interval_ms=60_000)
    job = NewJob(UUID(int=0), "1", labels=Labels(key="k", unique_ms=3_600_000))
    await broker.schedules.put(replace(spec(every(600), missed=MissedRuns.ALL), job=job))
    first = await fall_behind(sql, 1_250)
    await all_have_their_turn(broker)
    now = await broker.schedules.get("tick")
    [stored] = await sql("SELECT id, key FROM live_job")
    assert await dues(sql) == [first] and stored["key"] == "k"
    assert (now.runs, now.last_job_id) == (1, stored["id"]) and now.next_run_at > datetime.now(UTC)
    assert now.last_error == f"the queue did not take the job: NOT_UNIQUE, job {stored['id']} stands in its way"
    refused = await broker.schedules.run("tick", uuid4(), repeatable=True)
    assert (refused.created, refused.reason, refused.met) == (False, NotCreated.NOT_UNIQUE, stored["id"])


async def test_a_schedule_of_a_newer_server_holds_up_no_other(replica: Replica, sql: Sql) -> None:
    broker = await replica(poll_interval_ms=60_000)
    await broker.schedules.put(spec(SECONDLY, "new"))
    await broker.schedules.put(spec(SECONDLY, "old"))
    await sql("UPDATE schedule SET job = job || '{\"colour\": 1}' WHERE name = 'new'")
    await sql("UPDATE schedule SET look_at = clock_timestamp(), next_run_at = date_trunc('second', clock_timestamp())")
    assert not await broker.schedules.run_due()
    assert (await broker.schedules.get("old")).runs >= 1
    assert await dues(sql, "new") == []
