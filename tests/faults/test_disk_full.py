"""A full disk: publishes are refused and can be repeated, outcomes are kept by the workers until there is room."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest

from jobwire.v1 import queue_service_pb2 as pb
from jobwire_server.embedded import EmbeddedPostgres
from tests.api.refusals import refused

from .conftest import Loads, Measured, Serving
from .load import refusals
from .watching import ready, run, stub

pytestmark = pytest.mark.timeout(300)

LARGE = pb.PublishRequest(queue="large", jobs=[pb.JobSpec(data=f'"{os.urandom(24_000).hex()}"') for _ in range(20)])
"""A megabyte that cannot be compressed to nothing."""


@pytest.fixture
def small_disk(open_folder: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder = open_folder / "small"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.call(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder]):
        pytest.skip("may not mount a file system here")
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Somebody else's file takes all the room."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
    yield
    ballast.unlink()


async def test_no_room_for_data(
    serving: Serving, load: Loads, own: EmbeddedPostgres, small_disk: Path, measured: Measured
) -> None:
    """The tables are on a full disk, the log of PostgreSQL is not: what needs another page is refused."""
    space = small_disk / "space"
    space.mkdir()
    own._runner().own(space)
    await run(own.dsn, "DROP TABLESPACE IF EXISTS small", f"CREATE TABLESPACE small LOCATION '{space}'")
    try:
        replica = serving(dsn=f"{own.dsn}?options=-cdefault_tablespace%3Dsmall")
        work = await load(replica)
        await work.hold()
        with full(small_disk):
            async with stub(replica) as queue:
                async with asyncio.timeout(60):
                    # Pages that have room take some more.
                    while True:
                        try:
                            await queue.Publish(LARGE)
                        except grpc.aio.AioRpcError:
                            break
                refusal = await refused(queue.Publish(LARGE))
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
                assert refusal.retry_after
            await asyncio.sleep(6)
        began = time.monotonic()
        await work.flows()
        measured("from the first room until jobs flow", time.monotonic() - began)
        await work.rows("DELETE FROM live_job WHERE queue = 'large' RETURNING 1")
        await work.proven()
        assert refusals(replica).keys() == {"DATABASE_UNAVAILABLE"}
    finally:
        await asyncio.to_thread(own.start)
        await run(own.dsn, f'DROP SCHEMA IF EXISTS "{work.schema}" CASCADE', "DROP TABLESPACE small")


@pytest.fixture
async def on_small_disk(open_folder: Path, small_disk: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL with its write-ahead log on a small disk."""
    postgres = EmbeddedPostgres(open_folder / "pg", settings={"max_wal_size": "32MB", "wal_recycle": "off"})
    await asyncio.to_thread(postgres.start)
    await asyncio.to_thread(postgres.stop)
    here = postgres.data_dir / "cluster" / "pg_wal"
    here.symlink_to(await asyncio.to_thread(shutil.move, here, small_disk))
    postgres._runner().own(small_disk)
    await asyncio.to_thread(postgres.start)
    yield postgres
    await asyncio.to_thread(postgres.kill)


async def test_no_room_for_the_write_ahead_log(
    on_small_disk: EmbeddedPostgres, small_disk: Path, serving: Serving, load: Loads, measured: Measured
) -> None:
    """PostgreSQL panics, and may not come up until there is room and somebody starts it."""
    postgres = on_small_disk
    replica = serving(dsn=postgres.dsn)
    work = await load(replica, dsn=postgres.dsn)
    await work.hold()
    with full(small_disk):
        async with stub(replica) as queue, asyncio.timeout(60):
            while b"PANIC" not in postgres.log_path.read_bytes():
                with suppress(grpc.aio.AioRpcError):
                    await queue.Publish(LARGE, timeout=5)
        await ready(replica, is_ready=False)
        await asyncio.sleep(6)
    began = time.monotonic()
    if not postgres.running:
        await asyncio.to_thread(postgres.start)
    await ready(replica)
    await work.flows()
    measured("from the first room until jobs flow", time.monotonic() - began)
    await work.rows("DELETE FROM live_job WHERE queue = 'large' RETURNING 1")
    await work.proven()
