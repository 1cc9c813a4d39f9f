"""A primary with a synchronous standby: promoted in order, or after a crash, nothing acknowledged is lost.

The test plays the part of Patroni and its like: it stops or kills the primary, promotes the standby, and has the old
primary follow it. The servers know both addresses and go where writes are taken, by themselves.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import psycopg
import pytest

from jobwire.v1 import queue_service_pb2 as pb
from jobwire_server.embedded import EmbeddedPostgres
from jobwire_server.store.database import Database

from .conftest import Loads, Measured, Serving
from .watching import ready, run, stub

pytestmark = pytest.mark.timeout(300)

NAME = "standby"


class Pair:
    """Two PostgreSQL, of which one follows the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        # A standby that has lost its primary sleeps between two attempts, and notices its promotion only then.
        settings = {"wal_retrieve_retry_interval": "200ms"}
        self.primary = EmbeddedPostgres(folder / "first", settings=settings)
        self.standby = EmbeddedPostgres(folder / "second", settings=settings)

    @property
    def dsn(self) -> str:
        """Both, for whoever wants to write. They have one password, being copies."""
        credentials, _, rest = self.primary.dsn.rpartition("@")
        hosts = ",".join(
            sorted(postgres.dsn.rpartition("@")[2].split("/")[0] for postgres in (self.primary, self.standby))
        )
        return f"{credentials}@{hosts}/{rest.partition('/')[2]}?target_session_attrs=read-write"

    def begin(self) -> None:
        self.primary.start()
        self.follow(self.standby)

    def follow(self, other: EmbeddedPostgres) -> None:
        """Makes `other` anew as the primary's synchronous standby."""
        shutil.rmtree(other.data_dir, ignore_errors=True)
        other.data_dir.mkdir(mode=0o700)
        shutil.copy(self.primary.data_dir / "password", other.data_dir)
        conninfo = f"{self.primary.dsn}?application_name={NAME}"
        command = [
            self.primary.binaries / "pg_basebackup",
            "-d",
            conninfo,
            "-D",
            other.data_dir / "cluster",
            "-R",
            "-c",
            "fast",
        ]
        subprocess.run(command, check=True)
        other.start()
        self.standby = other

    async def synchronous(self, how: str = "on") -> None:
        """From now on a commit waits for the standby."""
        settings = [
            f"ALTER SYSTEM SET synchronous_standby_names = '{NAME}'",
            f"ALTER SYSTEM SET synchronous_commit = {how}",
        ]
        await run(self.primary.dsn, *settings, "SELECT pg_reload_conf()")
        async with asyncio.timeout(60):
            while not await self._in_step():
                await asyncio.sleep(0.1)

    async def _in_step(self) -> bool:
        async with await psycopg.AsyncConnection.connect(self.primary.dsn, autocommit=True) as connection:
            found = await connection.execute(
                "SELECT FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"
            )
            return await found.fetchone() is not None

    async def promote(self) -> None:
        """The standby becomes the primary; it waits for nobody until it has a standby of its own."""
        self.primary, self.standby = self.standby, self.primary
        await run(
            self.primary.dsn,
            "ALTER SYSTEM SET synchronous_standby_names = ''",
            "SELECT pg_reload_conf()",
            "SELECT pg_promote()",
        )

    def end(self) -> None:
        self.primary.stop()
        self.standby.stop()


@pytest.fixture
async def pair(open_folder: Path) -> AsyncIterator[Pair]:
    pair = Pair(open_folder)
    try:
        await asyncio.to_thread(pair.begin)
        await pair.synchronous()
        yield pair
    finally:
        await asyncio.to_thread(pair.end)


@pytest.mark.parametrize("crash", [False, True], ids=["switchover", "crash"])
async def test_failover_under_load(pair: Pair, serving: Serving, load: Loads, measured: Measured, crash: bool) -> None:
    """There and back again."""
    replicas = serving(dsn=pair.dsn), serving(dsn=pair.dsn)
    work = await load(*replicas, dsn=pair.dsn)
    await work.hold()
    for turn in range(2):
        await work.claimed()
        old, began = pair.primary, time.monotonic()
        if crash:
            old._server.kill()  # type: ignore[union-attr]
            await asyncio.to_thread(old._server.wait)  # type: ignore[union-attr]
        else:
            await asyncio.to_thread(old.stop)
        await pair.promote()
        await ready(*replicas)
        await work.flows()
        measured("from the end of the primary until jobs flow", time.monotonic() - began)
        if turn == 0:
            await asyncio.to_thread(pair.follow, old)
            await pair.synchronous()
    await work.proven()


async def test_without_its_standby_nothing_is_acknowledged_and_nothing_expires(
    pair: Pair, serving: Serving, load: Loads
) -> None:
    """Every commit waits, renewals too, for longer than the owner grace; one replica has no sessions and looks on."""
    replica, onlooker = serving(dsn=pair.dsn), serving(dsn=pair.dsn)
    work = await load(replica, dsn=pair.dsn)
    await work.hold()
    await asyncio.to_thread(pair.standby.stop)
    await asyncio.sleep(2)
    before = len(work.acknowledged)
    async with stub(onlooker) as queue:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await queue.Publish(pb.PublishRequest(queue="other", jobs=[pb.JobSpec()]), timeout=3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # The onlooker has nothing to renew; an empty commit waits for nobody.
    await ready(replica, is_ready=False)
    await asyncio.sleep(6)
    assert len(work.acknowledged) == before
    await asyncio.to_thread(pair.standby.start)
    await ready(replica, onlooker)
    await work.flows()
    work.replicas.append(onlooker)
    await run(pair.dsn, f"DELETE FROM \"{work.schema}\".live_job WHERE queue = 'other'")
    await work.proven()


async def test_an_old_primary_that_comes_back_is_not_used(pair: Pair, serving: Serving, load: Loads) -> None:
    """It comes back as its manager brings it back: fenced, read-only.

    Were it to take writes, no client could know: two PostgreSQL that both take writes are for the manager to prevent.
    """
    replica = serving(dsn=pair.dsn)
    work = await load(replica, dsn=pair.dsn)
    old = pair.primary
    await asyncio.to_thread(old.kill)
    await pair.promote()
    await work.flows()
    old.settings["default_transaction_read_only"] = "on"
    await asyncio.to_thread(old.start)
    # Every connection is made anew, and the old primary's address is asked first.
    for _ in range(3):
        await run(
            pair.primary.dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobwire'",
        )
        await work.flows()
    await work.proven()


@pytest.mark.parametrize("how", ["remote_apply", "remote_write"])
async def test_what_commits_wait_for_is_left_as_it_is(pair: Pair, how: str) -> None:
    await pair.synchronous(how)
    async with Database(pair.dsn) as database, database.connection() as connection:
        row = await (await connection.execute("SHOW synchronous_commit")).fetchone()
        assert row == (how,)
