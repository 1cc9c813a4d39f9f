"""Schedules on real replicas: killed again and again, and with a clock that is ten minutes off."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobwire import Client, Cron, InvalidArgument, NewJob
from jobwire_server.embedded import EmbeddedPostgres
from tests.system.conftest import ServerProcess

from .conftest import Serving
from .test_clocks import LIBRARY, start_with_a_wrong_clock

pytestmark = pytest.mark.timeout(300)

SECONDLY = Cron("* * * * * *", "Europe/Berlin")
SECOND = timedelta(seconds=1)


@pytest.fixture
def jobs(own: EmbeddedPostgres, schema: str) -> Callable[[], list[tuple[datetime, datetime]]]:
    """The due times of all jobs that schedules have made, and when these were stored, by the database's clock."""

    def look() -> list[tuple[datetime, datetime]]:
        with psycopg.connect(own.dsn, autocommit=True) as connection:
            rows: list[Any] = connection.execute(
                f"SELECT (headers::jsonb ->> 'jobwire-due-time')::timestamptz, created_at"
                f' FROM "{schema}".live_job WHERE headers IS NOT NULL ORDER BY 1'.encode()
            ).fetchall()
        return rows

    return look


async def many(jobs: Callable[[], list[Any]], count: int) -> None:
    """Returns when there are so many more."""
    before = len(jobs())
    async with asyncio.timeout(90):
        while len(jobs()) < before + count:
            await asyncio.sleep(0.1)


def unbroken(made: list[tuple[datetime, datetime]]) -> None:
    """Each second has its job, and only one; none came before its time."""
    assert {later[0] - earlier[0] for earlier, later in pairwise(made)} == {SECOND}
    assert all(stored >= due for due, stored in made)


async def test_replicas_that_are_killed_again_and_again(serving: Serving, jobs: Callable[[], list[Any]]) -> None:
    """At times nobody is there; what was missed is made up for, and nothing is made twice."""
    replicas: list[ServerProcess] = [serving(), serving()]
    async with Client("ipv4:" + ",".join(replica.address for replica in replicas)) as client:
        await client.admin.put_schedule("tick", "work", SECONDLY, NewJob(None), missed="all", tolerance=2)
    for n in range(6):
        await many(jobs, 2)
        replicas[n % 2].send(signal.SIGKILL)
        if n % 3 == 2:
            replicas[(n + 1) % 2].send(signal.SIGKILL)
            await asyncio.sleep(3)
            replicas[(n + 1) % 2].kill()
            replicas[(n + 1) % 2].start()
        replicas[n % 2].kill()
        replicas[n % 2].start()
    await many(jobs, 3)
    unbroken(jobs())


@pytest.mark.skipif(LIBRARY is None or shutil.which("faketime") is None, reason="faketime is not installed")
@pytest.mark.parametrize("offset", ["+10m", "-10m"])
async def test_a_replica_whose_clock_is_wrong(
    serving: Serving, jobs: Callable[[], list[Any]], tmp_path: Path, offset: str
) -> None:
    """Whoever is asked, and whoever runs it: only the database's clock counts."""
    right, wrong = serving(), serving()
    start_with_a_wrong_clock(wrong, tmp_path, offset)
    async with Client(wrong.address) as client:
        tick = await client.admin.put_schedule("tick", "work", SECONDLY)
        assert abs(tick.next_run_at - datetime.now(UTC)) < timedelta(minutes=1)
        # Past by the clock that is ahead; to come by the one that is behind.
        soon, past = datetime.now(UTC) + timedelta(minutes=5), datetime.now(UTC) - timedelta(minutes=5)
        assert (await client.admin.put_schedule("later", "later", soon)).next_run_at == soon
        with pytest.raises(InvalidArgument, match="must be to come"):
            await client.admin.put_schedule("before", "later", past)
        assert abs((await client.admin.preview_schedule(SECONDLY, 1))[0] - datetime.now(UTC)) < timedelta(minutes=1)
        await many(jobs, 4)
        # Alone, it runs them all.
        right.stop()
        await many(jobs, 4)
        right.start()
        await many(jobs, 2)
        later = await client.admin.get_schedule("later")
        assert (later.run_count, later.next_run_at) == (0, soon)
    unbroken(jobs())
