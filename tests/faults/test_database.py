"""The database goes away, breaks off, refuses to write: running jobs go on, and all comes back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psycopg
import pytest

from jobwire.v1 import queue_service_pb2 as pb
from jobwire_server.embedded import EmbeddedPostgres
from tests.api.refusals import refused
from tests.conftest import long

from .conftest import Loads, Measured, Serving
from .load import refusals
from .watching import ready, run, stub

pytestmark = pytest.mark.timeout(300)

PUBLISH = pb.PublishRequest(queue="work", jobs=[pb.JobSpec(data='{"held": false}')])


@pytest.mark.parametrize("seconds", [5, 10, pytest.param(60, marks=long)])
async def test_stopped_for_longer_than_the_owner_grace(
    serving: Serving, load: Loads, own: EmbeddedPostgres, measured: Measured, seconds: int
) -> None:
    """One replica sees the sessions of the other stand still for as long, since that renews less before and after."""
    one, late = serving(), serving()
    work = await load(one, late)
    await work.hold()
    late.send(signal.SIGSTOP)
    await asyncio.sleep(1.5)
    await asyncio.to_thread(own.stop)
    late.send(signal.SIGCONT)
    await ready(one, late, is_ready=False)
    await asyncio.sleep(seconds)
    late.send(signal.SIGSTOP)
    began = time.monotonic()
    await asyncio.to_thread(own.start)
    await ready(one)
    await asyncio.sleep(2)
    late.send(signal.SIGCONT)
    await ready(late)
    await work.flows()
    measured("from its start until jobs flow", time.monotonic() - began)
    await work.proven()


@contextmanager
def _frozen(own: EmbeddedPostgres) -> Iterator[None]:
    """All processes of PostgreSQL stand still, its connections included."""
    assert own._server is not None
    pid = own._server.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    processes = [pid, *map(int, children)]
    try:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds PostgreSQL's processes in /proc")
async def test_frozen_for_longer_than_the_owner_grace(
    serving: Serving, load: Loads, own: EmbeddedPostgres, measured: Measured
) -> None:
    """No connection breaks: what was asked is answered late."""
    replicas = serving(), serving()
    work = await load(*replicas)
    await work.hold()
    with _frozen(own):
        await ready(*replicas, is_ready=False)
        await asyncio.sleep(6)
    began = time.monotonic()
    await ready(*replicas)
    await work.flows()
    measured("from the thaw until jobs flow", time.monotonic() - began)
    await work.proven()


async def _close_connections(own: EmbeddedPostgres) -> None:
    await run(own.dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobwire'")


async def _kill_a_backend(own: EmbeddedPostgres) -> None:
    """By SIGKILL: PostgreSQL ends all others too, and recovers."""
    async with await psycopg.AsyncConnection.connect(own.dsn) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            await connection.execute("SELECT 1")


async def _kill_the_postmaster(own: EmbeddedPostgres) -> None:
    assert own._server is not None
    own._server.kill()
    await asyncio.to_thread(own._server.wait)
    await asyncio.to_thread(own.start)


@pytest.mark.parametrize("breaking", [_close_connections, _kill_a_backend, _kill_the_postmaster])
async def test_broken_off_just_after_claims(
    serving: Serving,
    load: Loads,
    own: EmbeddedPostgres,
    measured: Measured,
    breaking: Callable[[EmbeddedPostgres], Awaitable[None]],
) -> None:
    replicas = serving(), serving()
    work = await load(*replicas)
    await work.hold()
    for _ in range(3):
        await work.claimed()
        began = time.monotonic()
        await breaking(own)
        await ready(*replicas)
        await work.flows()
        measured("until jobs flow", time.monotonic() - began)
    await work.proven()


async def test_read_only(serving: Serving, load: Loads, own: EmbeddedPostgres) -> None:
    replica = serving()
    work = await load(replica)
    await work.hold()
    await run(own.dsn, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    await ready(replica, is_ready=False)
    async with stub(replica) as queue:
        refusal = await refused(queue.Publish(PUBLISH))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert refusal.retry_after
    # Longer than the owner's grace.
    await asyncio.sleep(6)
    off = ("SET default_transaction_read_only = off", "ALTER SYSTEM RESET default_transaction_read_only")
    await run(own.dsn, *off, "SELECT pg_reload_conf()")
    await ready(replica)
    await work.flows()
    await work.proven()
    assert refusals(replica).keys() == {"DATABASE_UNAVAILABLE"}


async def test_a_replica_without_sessions_is_not_ready_while_the_database_is_read_only(
    serving: Serving, own: EmbeddedPostgres
) -> None:
    """It has nothing to renew, but would refuse every publish."""
    replica = serving()
    await run(own.dsn, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    await ready(replica, is_ready=False)
    off = ("SET default_transaction_read_only = off", "ALTER SYSTEM RESET default_transaction_read_only")
    await run(own.dsn, *off, "SELECT pg_reload_conf()")
    await ready(replica)


async def _all_others(own: EmbeddedPostgres) -> list[psycopg.AsyncConnection[object]]:
    """Connections of others, until PostgreSQL takes no more."""
    others = []
    while True:
        try:
            others.append(await psycopg.AsyncConnection.connect(own.dsn, autocommit=True))
        except psycopg.OperationalError:
            return others


async def test_others_have_all_connections_at_the_start_and_later(
    serving: Serving, load: Loads, own: EmbeddedPostgres
) -> None:
    others = await _all_others(own)
    replica = serving(wait=False)
    await asyncio.to_thread(replica.wait_for, "waiting for the database")
    await ready(replica, is_ready=False)
    for other in others:
        await other.close()
    await asyncio.to_thread(replica.wait_for, "serving")
    work = await load(replica)
    await work.hold()
    others = await _all_others(own)
    # Whatever closes the server's connections now closes them for long.
    await others[0].execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobwire'")
    others += await _all_others(own)
    await ready(replica, is_ready=False)
    await asyncio.sleep(6)
    for other in others:
        await other.close()
    await ready(replica)
    await work.flows()
    await work.proven()


async def test_a_stop_does_not_wait_for_a_database_that_is_away(
    serving: Serving, load: Loads, own: EmbeddedPostgres, measured: Measured
) -> None:
    replica, other = serving(), serving()
    work = await load(replica, other)
    await work.hold()
    await asyncio.to_thread(own.stop)
    await ready(replica, is_ready=False)
    # Until the pool has noticed it too: from then on whoever asks for a connection waits.
    await asyncio.sleep(3)
    began = time.monotonic()
    replica.send(signal.SIGTERM)
    assert await asyncio.to_thread(replica.ends) == 0
    taken = time.monotonic() - began
    measured("from SIGTERM to the end", taken)
    # Not the time that a call waits for a connection, let alone twice that.
    assert taken < 5
    await asyncio.to_thread(own.start)
    await asyncio.to_thread(replica.start)
    await ready(replica, other)
    await work.flows()
    await work.proven()
