"""The short form of `make chaos`: one, two and three servers under faults, and rolling deploys of them.

`JOBWIRE_CHAOS_SEED` draws other faults and loads.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.run import Plan, Result, run
from tests.chaos.table import as_text

SEED = int(os.environ.get("JOBWIRE_CHAOS_SEED", "1"))


async def well(plan: Plan, folder: Path) -> Result:
    """Makes a run in which no promise is broken."""
    said: list[str] = []
    result = await run(plan, folder / "run", said.append)
    if result.problems:
        table = as_text(result.report, result.faults, result.recovery)
        pytest.fail("\n".join([*said, table, *result.problems]), pytrace=False)
    report = result.report
    assert report.acknowledged == report.outcomes + report.held_up == plan.jobs
    return result


@pytest.mark.timeout(600)
@pytest.mark.parametrize("servers", [1, 2, 3])
async def test_no_fault_breaks_a_promise(servers: int, tmp_path: Path) -> None:
    result = await well(Plan(SEED * 100 + servers, servers=servers, seconds=25.0, jobs=2_500), tmp_path)
    assert len(result.faults) >= 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize("servers", [1, 3])
async def test_no_deploy_touches_a_running_job(servers: int, tmp_path: Path) -> None:
    deploys = frozenset({"rolling"})
    result = await well(Plan(SEED, servers=servers, seconds=8.0, jobs=1_200, only=deploys, pause=1.0), tmp_path)
    restarts = [fault for fault in result.faults if fault.what == "restart"]
    assert len(restarts) >= servers
