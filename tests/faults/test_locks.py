"""What others hold in the database: it delays whom it concerns, and nobody else."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from jobwire.v1 import queue_service_pb2 as pb
from jobwire_server.embedded import EmbeddedPostgres
from jobwire_server.store import archive
from tests.api.refusals import refused
from tests.conftest import long, opened
from tests.system.conftest import until

from .conftest import Loads, Measured, Serving
from .load import refusals
from .watching import stub, transaction

pytestmark = pytest.mark.timeout(300)


async def test_a_business_transaction_that_published_the_id_and_stays_open(
    serving: Serving, load: Loads, own: EmbeddedPostgres, schema: str
) -> None:
    """It holds the key: whoever publishes the same id is told to repeat it; who shares its group is not."""
    replica = serving()
    work = await load(replica)
    await work.hold()
    job_id = str(uuid4())
    options = f"""'{{"id": "{job_id}"}}'"""
    publish = f"""SELECT "{schema}".publish('work', '{{"held": false}}', {options})"""
    same = pb.PublishRequest(queue="work", jobs=[pb.JobSpec(id=job_id, data='{"held": false}')])
    other = pb.PublishRequest(queue="work", jobs=[pb.JobSpec(data='{"held": false}')])
    async with stub(replica) as queue:
        async with transaction(own.dsn, publish):
            for _ in range(3):
                first = asyncio.ensure_future(refused(queue.Publish(same)))
                neighbours = await asyncio.gather(*(queue.Publish(other) for _ in range(20)))
                refusal = await first
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "LOCK_TIMEOUT")
                assert refusal.retry_after
                for neighbour in neighbours:
                    work.acknowledged[neighbour.results[0].job_id] = time.monotonic()
        # It was rolled back: the id is free.
        assert (await queue.Publish(same)).results[0].created
        work.acknowledged[job_id] = time.monotonic()
    await work.proven()


async def test_an_analyst_locks_one_running_job(serving: Serving, load: Loads, own: EmbeddedPostgres) -> None:
    replica = serving()
    work = await load(replica)
    await work.hold(3)
    locked = work.held[0]
    async with transaction(own.dsn, f"SELECT FROM \"{work.schema}\".live_job WHERE id = '{locked}' FOR UPDATE"):
        work.release.set()
        await until(lambda: all(work.dones[job_id] for job_id in work.held))
        others = work.held[1:]
        query = "SELECT FROM archive WHERE id = ANY (%s::uuid[])"
        async with asyncio.timeout(60):
            while len(await work.rows(query, others)) < len(others):
                await asyncio.sleep(0.1)
        # Each second of waiting is one for those who share a group with it: slower, but all get through.
        for _ in range(3):
            await work.flows()
        assert await work.rows(query, [locked]) == []
    await work.proven()
    assert refusals(replica).keys() == {"LOCK_TIMEOUT"}


@pytest.mark.parametrize(
    "lock",
    ["SELECT FROM {}.session ORDER BY id LIMIT 1 FOR UPDATE", pytest.param("LOCK TABLE {}.session", marks=long)],
)
async def test_an_analyst_locks_a_session_for_longer_than_the_owner_grace(
    serving: Serving, load: Loads, own: EmbeddedPostgres, lock: str
) -> None:
    """The renewals of all sessions of a replica wait for it, and the other replica looks on: none is ended for that."""
    replicas = serving(), serving()
    work = await load(*replicas)
    await work.hold()
    async with transaction(own.dsn, lock.replace("{}", f'"{work.schema}"')):
        await asyncio.sleep(8)
    await work.flows()
    await work.proven()


async def test_a_table_locked_against_everybody(
    serving: Serving, load: Loads, own: EmbeddedPostgres, measured: Measured
) -> None:
    replicas = serving(), serving()
    work = await load(*replicas)
    await work.hold()
    for table in ("live_job", "ready", "claim", "archive", "queue"):
        async with transaction(own.dsn, f'LOCK TABLE "{work.schema}".{table} IN ACCESS EXCLUSIVE MODE'):
            await asyncio.sleep(1.5)
        began = time.monotonic()
        await work.flows()
        measured(f"from the release of {table} until jobs flow", time.monotonic() - began)
    await work.proven()
    for replica in replicas:
        assert refusals(replica).keys() <= {"LOCK_TIMEOUT", "DATABASE_UNAVAILABLE"}


async def test_a_dump_harms_nobody(serving: Serving, load: Loads, own: EmbeddedPostgres, tmp_path: Path) -> None:
    replica = serving()
    work = await load(replica)
    await work.hold()
    dump = [own.binaries / "pg_dump", "--schema", work.schema, "--format=custom", "--file", tmp_path / "dump", own.dsn]
    for _ in range(3):
        assert (await (await asyncio.create_subprocess_exec(*dump)).wait()) == 0
        await work.flows()
    await work.proven()
    # Each call that was not answered OK was cut by a lock: there was none.
    assert not refusals(replica)


async def test_an_archive_day_that_a_dump_reads_is_dropped_later(own: EmbeddedPostgres, schema: str) -> None:
    async with opened(own.dsn, schema) as database:
        today = await archive.make_days_ahead(database)
        past = today - timedelta(days=1)
        await archive.make_days(database, [past])
        # What pg_dump does first, for all tables.
        async with transaction(own.dsn, f'LOCK TABLE "{schema}".archive IN ACCESS SHARE MODE'):
            async with asyncio.timeout(20):
                assert await archive.drop_past_days(database, today) == []
                # A new day is made beside it.
                await archive.make_days(database, [today + timedelta(days=400)])
        assert await archive.drop_past_days(database, today) == [past]
