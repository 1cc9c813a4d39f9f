"""PgBouncer in transaction mode stands between the servers and PostgreSQL, and every promise holds."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc.aio
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from jobwire import Client, Job, JobState
from jobwire.v1 import queue_service_pb2 as pb
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from jobwire_server.domain.jobs import CancelStatus, NewJob
from jobwire_server.domain.queues import Queue
from jobwire_server.embedded import EmbeddedPostgres
from jobwire_server.store import archive, publishing, queues, settling
from jobwire_server.store import connection as connection_module
from tests.conftest import Postgres, opened
from tests.system import conftest as processes
from tests.system.conftest import ServerProcess, WorkerProcess, until

from .support_pooler import PROGRAM, PgBouncer

ROOT = Path(__file__).parents[2]
WARNING = "a pooler stands before the database"

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")

server, worker = processes.server, processes.worker

Servers = Callable[..., ServerProcess]
Workers = Callable[..., WorkerProcess]


@pytest.fixture
def folder() -> Iterator[Path]:
    """For a program that is not ours; not below pytest's own folder, which its user may not enter."""
    with tempfile.TemporaryDirectory(prefix="jobwire-pooler-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def pooler(postgres: Postgres, folder: Path) -> Iterator[PgBouncer]:
    with PgBouncer(postgres.dsn, folder) as pooler:
        yield pooler


@pytest.fixture
def careless(postgres: Postgres) -> Iterator[str]:
    """The PostgreSQL of the run, for a role whose defaults are all that Jobwire must not rely on."""
    name, password = f"careless_{secrets.token_hex(5)}", secrets.token_hex(10)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        [[database]] = connection.execute("SELECT current_database()").fetchall()
        connection.execute(
            f"CREATE ROLE {name} LOGIN PASSWORD '{password}';"
            f'GRANT CREATE ON DATABASE "{database}" TO {name};'
            f"ALTER ROLE {name} SET synchronous_commit = off;"
            f"ALTER ROLE {name} SET lock_timeout = 0;"
            f"ALTER ROLE {name} SET statement_timeout = 0;"
            f"ALTER ROLE {name} SET timezone = 'Asia/Kathmandu'".encode()
        )
        yield make_conninfo(postgres.dsn, user=name, password=password)
        connection.execute(
            f"SET client_min_messages = warning; DROP OWNED BY {name} CASCADE; DROP ROLE {name}".encode()
        )


async def completed(client: Client, ids: list[str]) -> list[Job]:
    """Waits until all jobs are completed."""
    async with asyncio.timeout(processes.PATIENCE):
        jobs = [await client.wait(job_id, queue="work") for job_id in ids]
    assert {job.state for job in jobs} == {JobState.COMPLETED}
    return jobs


def get(server: ServerProcess, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def said(server: ServerProcess, level: str) -> list[str]:
    return [line["event"] for line in server.events() if line["level"] == level]


@pytest.mark.timeout(600)
def test_store_and_broker_hold_through_it(postgres: Postgres, pooler: PgBouncer) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        # What is the same whoever carries the statements, and takes minutes.
        *("--ignore", "tests/store/test_transitions.py"),
        "tests/store",
        "tests/broker/test_delivery.py",
    ]
    env = os.environ | {"JOBWIRE_DATABASE_URL": postgres.dsn, "TEST_POOLER_URL": pooler.dsn}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert pooler.leftovers() == []


async def test_two_replicas_do_all_that_they_do_without_one(
    pooler: PgBouncer, server: Servers, worker: Workers
) -> None:
    one, other = server(dsn=pooler.dsn), server(dsn=pooler.dsn)
    for replica in (one, other):
        assert said(replica, "warning") == [WARNING]
        assert re.search(r"^jobwire_behind_pooler 1\.0$", get(replica, "metrics")[1], re.MULTILINE)
    working = worker(one.address, seconds=5.0, concurrency=2)
    async with Client(other.address) as there, Client(one.address) as here:
        running, doomed = [(await there.publish("work", n)).job_id for n in range(2)]
        await until(lambda: len(working.starts()) == 2)
        waiting = asyncio.create_task(there.wait(running, queue="work"))
        await there.admin.cancel_jobs("work", [doomed])
        assert (await here.wait(doomed, queue="work", timeout=30)).state is JobState.CANCELLED
        # A deploy of the replica that serves the worker.
        one.send(signal.SIGTERM)
        assert await asyncio.to_thread(one.ends, 40) == 0
        await asyncio.to_thread(one.start)
        done = await waiting
        assert (done.state, done.attempt, done.loss_count) == (JobState.COMPLETED, 1, 0)
        [last] = [(await there.publish("work", n)).job_id for n in range(1)]
        await completed(there, [last])
    assert Counter(working.starts()) == Counter([running, doomed, last])
    assert [said(replica, "warning").count(WARNING) for replica in (one, other)] == [2, 1]
    assert [said(replica, "error") for replica in (one, other)] == [[], []]
    assert pooler.leftovers() == []


@pytest.mark.parametrize("mixed", [False, True])
async def test_acks_at_another_replica_are_signs_of_life_and_return_credits(
    pooler: PgBouncer, postgres: Postgres, server: Servers, mixed: bool
) -> None:
    """The replica that has the stream gets no Ack at all, for longer than three heartbeats.

    `mixed`: the other one has no pooler.
    """
    one, other = server(dsn=pooler.dsn), server(dsn=postgres.dsn if mixed else pooler.dsn)
    async with grpc.aio.insecure_channel(one.address) as to_one, grpc.aio.insecure_channel(other.address) as to_other:
        here, there = QueueServiceStub(to_one), QueueServiceStub(to_other)
        await there.Publish(pb.PublishRequest(queue="work", jobs=[pb.JobSpec(data=str(n)) for n in range(4)]))
        terms = pb.SubscribeRequest(queues=["work"], max_in_flight=1)
        terms.heartbeat_interval.FromSeconds(1)
        session, heartbeats, done = "", 0, 0
        async with asyncio.timeout(processes.PATIENCE):
            async for message in here.Subscribe(terms):
                session = session or message.opened.session_id
                items = [
                    pb.AckItem(handle=delivery.handle, complete=pb.Complete())
                    for delivery in message.deliveries.deliveries
                ]
                answer = await there.Ack(pb.AckRequest(session_id=session, items=items, last_sequence=message.sequence))
                assert [result.status for result in answer.results] == [pb.ACK_STATUS_APPLIED] * len(items)
                done += len(items)
                heartbeats += message.HasField("heartbeat")
                if done == 4 and heartbeats >= 6:
                    break
    assert "session lost" not in said(one, "warning")


async def test_each_transaction_has_its_settings_whatever_the_roles(
    server: Servers, worker: Workers, careless: str, schema: str, postgres: Postgres, folder: Path
) -> None:
    """Written down at the commit by triggers on what publishing, claiming and settling write."""
    names = ("synchronous_commit", "lock_timeout", "statement_timeout", "enable_seqscan", "plan_cache_mode", "TimeZone")
    with PgBouncer(careless, folder, size=3) as pooler:
        replica = server(dsn=pooler.dsn)
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute(f'SET search_path = "{schema}"'.encode())
            connection.execute(
                "CREATE TABLE seen (what text, settings text[]);"
                "GRANT INSERT ON seen TO PUBLIC;"
                "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                f" INSERT INTO \"{schema}\".seen SELECT TG_TABLE_NAME || ' ' || TG_OP,"
                f" array(SELECT current_setting(name) FROM unnest('{{{','.join(names)}}}'::text[]) AS name);"
                " RETURN NULL; END $$".encode()
            )
            for table in ("live_job", "ready", "claim", "session"):
                connection.execute(
                    f"CREATE CONSTRAINT TRIGGER note AFTER INSERT OR DELETE ON {table} DEFERRABLE INITIALLY DEFERRED"
                    " FOR EACH ROW EXECUTE FUNCTION note()".encode()
                )
            working = worker(replica.address, concurrency=2)
            async with Client(replica.address) as client:
                ids = [(await client.publish("work", n)).job_id for n in range(5)]
                await completed(client, ids)
                working.stop()
                replica.stop()
            seen = connection.execute("SELECT DISTINCT what, settings FROM seen ORDER BY what").fetchall()
    expected = ["on", "1s", "30s", "off", "force_generic_plan", "UTC"]
    writes = {f"{table} {how}" for table in ("live_job", "ready", "claim", "session") for how in ("INSERT", "DELETE")}
    assert dict(seen) == dict.fromkeys(writes, expected)
    assert len(seen) == len(writes)


@pytest.mark.timeout(240)
async def test_a_pooler_that_is_killed_under_load_loses_nothing(
    pooler: PgBouncer, server: Servers, worker: Workers
) -> None:
    replicas = [server(dsn=pooler.dsn), server(dsn=pooler.dsn)]
    target = "ipv4:" + ",".join(replica.address for replica in replicas)
    working = worker(target, seconds=0.5, concurrency=10)
    async with Client(target, timeout=90) as client:
        ids: list[str] = []

        async def publish(count: int) -> None:
            for n in range(count):
                ids.append((await client.publish("work", n)).job_id)
                await asyncio.sleep(0.02)

        publishing = [asyncio.create_task(publish(60)) for _ in range(4)]
        for pause in (0.0, 3.0):
            seen = len(ids)
            await until(lambda seen=seen: len(ids) > seen + 20)
            pooler.kill()
            await asyncio.sleep(pause)
            await asyncio.to_thread(pooler.start)
        await asyncio.gather(*publishing)
        jobs = await completed(client, ids)
    assert len(set(ids)) == 240
    assert Counter((job.retry_count, job.loss_count) for job in jobs) == {(0, 0): 240}
    assert set(working.dones()) == set(ids)
    for replica in replicas:
        assert said(replica, "error") == []


@pytest.mark.timeout(300)
async def test_postgresql_goes_away_behind_it_and_comes_back(folder: Path, server: Servers, worker: Workers) -> None:
    """The pooler stays, and answers logins for it; statements are refused, or kept waiting."""
    (folder / "pooler").mkdir()
    with EmbeddedPostgres(folder / "pg") as own, PgBouncer(own.dsn, folder / "pooler") as pooler:
        replica = server(dsn=pooler.dsn)
        working = worker(replica.address, seconds=5.0)
        async with Client(replica.address, timeout=120) as client:
            first = (await client.publish("work", 1)).job_id
            await until(working.starts)
            await asyncio.to_thread(own.kill)
            await until(lambda: get(replica, "readyz")[0] == 503)
            assert get(replica, "livez")[0] == 200
            publishing = asyncio.create_task(client.publish("work", 2))
            await asyncio.sleep(2.0)
            assert not publishing.done()
            await asyncio.to_thread(own.start)
            second = (await publishing).job_id
            [job, _] = await completed(client, [first, second])
            await until(lambda: get(replica, "readyz")[0] == 200)
        assert (job.attempt, job.loss_count) == (1, 0)
        assert said(replica, "error") == []
        working.stop()
        replica.stop()


async def test_a_pooler_that_does_not_answer_is_noticed(pooler: PgBouncer, server: Servers) -> None:
    """No connection breaks, and no setting of PostgreSQL bounds the wait."""
    replica = server(dsn=pooler.dsn)
    pooler.send(signal.SIGSTOP)
    try:
        await until(lambda: get(replica, "readyz")[0] == 503)
    finally:
        pooler.send(signal.SIGCONT)
    await until(lambda: get(replica, "readyz")[0] == 200)
    async with Client(replica.address, timeout=60) as client:
        assert (await client.publish("work", 1)).created
    assert said(replica, "error") == []


async def test_a_days_removal_that_a_reader_holds_up_is_ended_later(
    pooler: PgBouncer, postgres: Postgres, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DETACH CONCURRENTLY cannot be in a transaction, so no setting ends its wait; it is cancelled, and Acks go on."""
    monkeypatch.setattr(connection_module, "_ALONE_SECONDS", 1.0)
    async with opened(pooler.dsn, schema) as database:
        later = await archive.make_days_ahead(database) + timedelta(days=30)
        async with await psycopg.AsyncConnection.connect(postgres.dsn) as analyst:
            await analyst.execute(f'SELECT count(*) FROM "{schema}".archive'.encode())
            async with asyncio.timeout(processes.PATIENCE):
                assert await archive.drop_past_days(database, later) == []
            assert any(row.leaving for row in await database.once("archive_days"))
            await queues.create_queue(database, Queue("work"))
            await publishing.publish(database, Queue("work"), [NewJob(uuid4(), "0")])
            cancelled = await settling.cancel(database, "work", [uuid4()], 0)
            assert set(cancelled.statuses.values()) == {CancelStatus.NOT_FOUND}
        while rows := await database.once("archive_days"):
            assert set(await archive.drop_past_days(database, later)) <= {row.day for row in rows}


def test_the_command_line_works_through_it(pooler: PgBouncer, schema: str) -> None:
    env = {"JOBWIRE_DATABASE_URL": pooler.dsn, "JOBWIRE_SCHEMA": schema, "PATH": "/usr/bin:/bin"}
    for name in ("PYTHONPATH",):
        env |= {name: os.environ[name]} if name in os.environ else {}

    def jobwire(*arguments: str) -> subprocess.CompletedProcess[Any]:
        command = [sys.executable, "-m", "jobwire_server", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)

    assert jobwire("migrate", "--check").returncode == 1
    # At once, as several deploys do.
    running = [subprocess.Popen([sys.executable, "-m", "jobwire_server", "migrate"], env=env) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert jobwire("migrate", "--check").returncode == 0
    recovered = jobwire("recover", "--yes", "--json")
    assert recovered.returncode == 0, recovered.stderr
