"""A platform for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Postgres

from .cluster import Cluster


@pytest.fixture
async def cluster(postgres: Postgres, schema: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(postgres.dsn, schema, tmp_path).opened() as cluster:
        yield cluster
