"""A platform for one test."""

from __future__ import annotations

import asyncio
import fcntl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Postgres

from .cluster import Cluster


@pytest.fixture
async def cluster(postgres: Postgres, schema: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    # All clusters have the same addresses, and files of tests run beside each other.
    with (Path(tempfile.gettempdir()) / "jobwire-test-cluster").open("w") as addresses:
        await asyncio.to_thread(fcntl.flock, addresses, fcntl.LOCK_EX)
        async with Cluster(postgres.dsn, schema, tmp_path).opened() as cluster:
            yield cluster
