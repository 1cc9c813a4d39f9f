"""The store and the broker on every PostgreSQL that this machine has installed beside the embedded one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jobwire_server.embedded import EmbeddedPostgres

ROOT = Path(__file__).parents[2]
INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


FOLDERS = ["tests/store", "tests/broker"]
NONE = pytest.param(None, marks=pytest.mark.skip(reason="no PostgreSQL is installed in /usr/lib/postgresql"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("binary", INSTALLED or [NONE])
def test_store_and_broker_hold_on_the_systems_postgresql(binary: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="jobwire-version-") as folder:
        Path(folder).chmod(0o711)
        settings = {"max_connections": "200", "fsync": "off"}
        with EmbeddedPostgres(Path(folder) / "pg", settings=settings, binaries=binary.parent) as postgres:
            spread = ["--numprocesses", "2", "--dist", "loadfile"]
            command = [sys.executable, "-m", "pytest", "-q", *spread, "-p", "no:cacheprovider", *FOLDERS]
            env = os.environ | {"JOBWIRE_DATABASE_URL": postgres.dsn}
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
