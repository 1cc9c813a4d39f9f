"""One replica's wall clock is wrong, or jumps: nothing is decided by it.

faketime plays the wrong clock. It moves what the process reads as the time of day; the monotonic clock stays, as it
does when a clock is set.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobwire import Client, JobState
from tests.system.conftest import ServerProcess

from .conftest import Loads, Serving
from .watching import ready

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(LIBRARY is None or shutil.which("faketime") is None, reason="faketime is not installed"),
]


def start_with_a_wrong_clock(replica: ServerProcess, folder: Path, offset: str) -> Path:
    """Starts a replica whose clock is as the file says that is returned."""
    said = folder / "clock"
    said.write_text(offset)
    replica.env |= {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(said),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    replica.stop()
    replica.start()
    return said


async def test_one_replica_whose_clock_is_wrong(serving: Serving, load: Loads, tmp_path: Path) -> None:
    """From its start on, and then it jumps ahead and back: no session ends, nothing is due early, nothing expires."""
    right, wrong = serving(), serving()
    clock = start_with_a_wrong_clock(wrong, tmp_path, "+10m")
    work = await load(right, wrong)
    await work.hold()
    async with Client(wrong.address) as client:
        soon = await client.publish("soon", None, start_in=8)
        due = time.monotonic() + 8
        far = await client.publish("far", None, start_in=300)
        left = await work.rows("SELECT extract(epoch FROM start_after - now())::float8 FROM scheduled ORDER BY 1")
        assert left[0][0] <= 8 and 290 < left[1][0] <= 300
        for offset in ("+1h", "-1h"):
            clock.write_text(offset)
            # Until the replica shows it.
            async with asyncio.timeout(60):
                while not _shows(wrong, offset):
                    await client.get_job(far.job_id)
            for _ in range(6):
                early = await work.rows("SELECT FROM ready WHERE queue IN ('soon', 'far')")
                assert early == [] or time.monotonic() > due - 1
                await asyncio.sleep(0.3)
        async with asyncio.timeout(60):
            while not await work.rows("SELECT FROM ready WHERE queue = 'soon'"):
                await asyncio.sleep(0.2)
        assert (await client.get_job(far.job_id)).state is JobState.CREATED
        await client.admin.cancel_jobs("soon", [soon.job_id])
        await client.admin.cancel_jobs("far", [far.job_id])
    await ready(right, wrong)
    await work.flows()
    await work.rows("DELETE FROM archive WHERE queue <> 'work' RETURNING 1")
    await work.proven()


def _shows(replica: ServerProcess, offset: str) -> bool:
    """Whether the last line of its log is from such a clock."""
    ahead = datetime.fromisoformat(replica.events()[-1]["timestamp"]) - datetime.now(UTC)
    return abs(ahead - timedelta(hours=float(offset.removesuffix("h")))) < timedelta(minutes=5)
