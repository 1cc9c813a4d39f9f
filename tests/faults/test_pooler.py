"""PgBouncer in transaction mode stands between the servers and PostgreSQL, and every promise holds."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Postgres

from .support_pooler import PROGRAM, PgBouncer

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")


@pytest.fixture
def pooler(postgres: Postgres) -> Iterator[PgBouncer]:
    with tempfile.TemporaryDirectory(prefix="jobwire-pooler-") as folder:
        Path(folder).chmod(0o711)
        with PgBouncer(postgres.dsn, Path(folder)) as pooler:
            yield pooler


@pytest.mark.timeout(600)
def test_store_and_broker_hold_through_it(postgres: Postgres, pooler: PgBouncer) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/store", "tests/broker"]
    env = os.environ | {"JOBWIRE_DATABASE_URL": postgres.dsn, "TEST_POOLER_URL": pooler.dsn}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
