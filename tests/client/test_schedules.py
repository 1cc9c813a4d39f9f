"""Schedules through the Python client and the command line, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from jobwire import (
    Client,
    Cron,
    InvalidArgument,
    JobOptions,
    MissedRuns,
    NewJob,
    NotFound,
    ScheduleState,
    new_job_id,
)
from jobwire_server.app import Server, running
from jobwire_server.settings import load_settings
from tests.conftest import Postgres
from tests.unit.test_cli_server import Shell

NIGHTLY = Cron("0 3 * * *", "Europe/Berlin")


@pytest.fixture
async def server(postgres: Postgres, schema: str) -> AsyncIterator[Server]:
    settings = load_settings(
        database_url=postgres.dsn,
        schema_name=schema,
        listen="127.0.0.1:0",
        http_listen="127.0.0.1:0",
        drain_linger=0,
        poll_interval=0.1,
    )
    async with running(settings) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.address) as client:
        yield client


@pytest.fixture
def jobwire(postgres: Postgres, schema: str, server: Server) -> Shell:
    return Shell(postgres, schema, server)


async def test_put_and_get(client: Client) -> None:
    options = JobOptions(retry_limit=5, expire_in=30)
    job = NewJob({"a": [1]}, priority=2, headers={"h": "v"}, options=options)
    put = await client.admin.put_schedule(
        "nightly", "reports", NIGHTLY, job, missed="all", missed_limit=3, tolerance=timedelta(minutes=5)
    )
    assert put.created and put.when == NIGHTLY and put.state is ScheduleState.ACTIVE
    assert (put.data, put.priority, put.headers, put.options) == ({"a": [1]}, 2, {"h": "v"}, options)
    assert (put.missed, put.missed_limit, put.tolerance) == (MissedRuns.ALL, 3, 300.0)
    assert put.next_run_at is not None and put.next_run_at > put.created_at and put.run_count == 0
    assert put.last_run_at is put.last_due_at is put.last_error_at is None
    assert await client.admin.get_schedule("nightly") == put
    assert not (await client.admin.put_schedule("nightly", "reports", NIGHTLY)).created


async def test_all_kinds_of_timing(client: Client) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    for name, when in {"a": timedelta(minutes=1.5), "b": at, "c": Cron("*/5 * * * * *")}.items():
        assert (await client.admin.put_schedule(name, "work", when)).when == when
    assert [each.name async for each in client.admin.list_schedules()] == ["a", "b", "c"]
    assert [each.name async for each in client.admin.list_schedules("other")] == []
    assert await client.admin.preview_schedule("b") == [at]
    assert len(await client.admin.preview_schedule(Cron("0 0 1 1 *"), 4)) == 4


async def test_its_jobs_are_like_others(client: Client) -> None:
    await client.admin.put_schedule("tick", "work", Cron("* * * * * *"), NewJob(1))
    async with asyncio.timeout(60):
        while not (info := await client.admin.get_schedule("tick")).run_count:
            await asyncio.sleep(0.1)
    job = await client.get_job(info.last_job_id, "work")
    assert job.data == 1 and job.headers["jobwire-schedule"] == "tick"
    assert datetime.fromisoformat(job.headers["jobwire-due-time"]) == info.last_due_at
    assert (await client.admin.pause_schedule("tick")).state is ScheduleState.PAUSED
    assert (await client.admin.resume_schedule("tick")).state is ScheduleState.ACTIVE


async def test_run_and_delete(client: Client) -> None:
    await client.admin.put_schedule("nightly", "reports", NIGHTLY, NewJob("x"))
    job_id = new_job_id()
    assert [(await client.admin.run_schedule("nightly", job_id=job_id)).created for _ in range(2)] == [True, False]
    other = await client.admin.run_schedule("nightly")
    assert (await client.get_job(other.job_id)).data == "x"
    await client.admin.delete_schedule("nightly")
    with pytest.raises(NotFound) as caught:
        await client.admin.get_schedule("nightly")
    assert caught.value.reason == "SCHEDULE_NOT_FOUND"


async def test_what_cannot_be(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="no such day"):
        await client.admin.put_schedule("a", "b", Cron("0 3 30 2 *"))
    with pytest.raises(InvalidArgument, match="has no time zone"):
        await client.admin.put_schedule("a", "b", datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvalidArgument, match="must be to come"):
        await client.admin.put_schedule("a", "b", datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="never"):
        await client.admin.put_schedule("a", "b", timedelta(hours=1), missed="never")


async def test_the_command_line(jobwire: Shell, client: Client) -> None:
    put = ("schedules", "put", "nightly", "reports", '{"a": 1}', "--cron", "0 3 * * *", "--time-zone", "Europe/Berlin")
    [made] = await jobwire.json(
        *put, "--missed", "once", "--priority", "3", "--header", "h=v", "--retry-limit", "0", "--key", "k"
    )
    assert made["when"] == {"cron": "0 3 * * *", "time_zone": "Europe/Berlin"} and made["state"] == "active"
    assert (made["data"], made["missed"], made["headers"], made["priority"]) == ({"a": 1}, "once", {"h": "v"}, 3)
    assert (made["options"]["retry_limit"], made["key"]) == (0, "k")
    assert "replaced" in (await jobwire(*put)).stdout
    assert await jobwire.json("schedules") == await jobwire.json("schedules", "list", "--queue", "reports")
    table = (await jobwire("schedules")).stdout
    assert all(text in table for text in ("nightly", "reports", "active", "next run"))
    [paused] = await jobwire.json("schedules", "pause", "nightly")
    assert (paused["state"], paused["next_run_at"]) == ("paused", None)
    assert (await jobwire("schedules", "resume", "nightly")).returncode == 0
    ran = await jobwire("schedules", "run", "nightly")
    assert (await client.get_job(ran.stdout.strip())).data == {"a": 1}
    shown = (await jobwire("schedules", "show", "nightly")).stdout
    assert ran.stdout.strip() in shown and "Europe/Berlin" in shown
    assert (await jobwire("schedules", "delete", "nightly")).returncode == 0
    assert await jobwire.json("schedules") == []


async def test_preview_on_the_command_line(jobwire: Shell) -> None:
    lines = (await jobwire("schedules", "preview", "--cron", "30 2 29 3 *", "--time-zone", "Europe/Berlin")).stdout
    assert len(lines.splitlines()) == 10
    assert all(line.split()[1].endswith("-03-29") for line in lines.splitlines())
    # Where 29 March is the day on which clocks are put forward, 2:30 is at the leap.
    assert {line.split(maxsplit=2)[2] for line in lines.splitlines()} <= {
        "02:30:00 CET",
        "02:30:00 CEST",
        "03:00:00 CEST",
    }
    await jobwire("schedules", "put", "often", "work", "--every", "90")
    due = await jobwire.json("schedules", "preview", "often", "-n", "3")
    first, second, third = (datetime.fromisoformat(each["due_time"]) for each in due)
    assert third - second == second - first == timedelta(seconds=90)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("put", "a", "b", "--cron", "0 3 30 2 *"), 2, "no such day is in these months"),
        (("put", "a", "b", "--cron", "0 3 * * *", "--time-zone", "Mars/Olympus"), 2, "IANA"),
        (("put", "a", "b", "--every", "0"), 2, "1 s to 3,650 days; got 0 s"),
        (("put", "a", "b", "--at", "2020-01-01T00:00:00Z"), 2, "must be to come"),
        (("put", "a", "b", "--at", "soon"), 2, "not understood"),
        (("put", "a", "b"), 2, "one of --cron, --every and --at"),
        (("put", "a", "b", "--every", "60", "--cron", "0 3 * * *"), 2, "one of --cron"),
        (("put", "a", "b", "{", "--every", "60"), 2, "not JSON"),
        (("put", "a", "b", "--every", "60", "--header", "x"), 2, "NAME=VALUE"),
        (("preview",), 2, "name a schedule"),
        (("preview", "nowhere"), 3, "does not exist"),
        (("show", "nowhere"), 3, "does not exist"),
        (("run", "nowhere"), 3, "does not exist"),
    ],
)
async def test_what_the_command_line_refuses(jobwire: Shell, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = await jobwire("schedules", *arguments)
    assert done.returncode == code and words in done.stderr
    assert await jobwire.json("schedules") == []
