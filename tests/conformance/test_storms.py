"""The long form of the scenario `storm`: each client that claims it sees many through, one seed after the other.

`make conformance ARGS="go --storms 30"`, or `JOBWIRE_STORMS=30 pytest tests/conformance/test_storms.py -k go`. The
seeds begin with `JOBWIRE_STORM_SEED`.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.conformance.clients import CLIENTS
from tests.conformance.playing import LONGEST, claims
from tests.conformance.scenarios.storms import SEED, see_through
from tests.conformance.servers import Servers
from tests.conformance.stage import Stage
from tests.conftest import LONG

STORMS = int(os.environ.get("JOBWIRE_STORMS", "10" if LONG else "0"))

RESUMING = [name for name, client in CLIENTS.items() if client.form == "resuming"]


@pytest.mark.timeout(2 * LONGEST)
@pytest.mark.skipif(not STORMS, reason="takes minutes: JOBWIRE_STORMS=10 or JOBWIRE_LONG_TESTS=1 runs it")
@pytest.mark.parametrize("seed", range(SEED, SEED + max(1, STORMS)))
@pytest.mark.parametrize("name", RESUMING)
async def test_a_client_sees_many_storms_through(name: str, seed: int, servers: Servers, tmp_path: Path) -> None:
    client = CLIENTS[name]
    if client.missing:
        pytest.skip(client.missing)
    assert "storm" in await claims(client, tmp_path)
    async with asyncio.timeout(LONGEST), Stage(servers, client.command, tmp_path / "storm") as stage:
        await see_through(stage, seed, hard=True)
