"""The example, built by the commands of its page; a database, a server and the example's processes for each test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conformance.clients import CLIENTS
from tests.conftest import Postgres
from tests.examples.backend import EXAMPLE, INSTALL, AppDatabase, Backend, app_database


@pytest.fixture(scope="session")
def built() -> None:
    """The example, installed and compiled as its page says; the client is there already."""
    if CLIENTS["node"].missing:
        pytest.skip(CLIENTS["node"].missing)
    for program in ("npm", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on PATH")
    command = ["sh", "-ec", INSTALL.code]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{INSTALL.code}\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def app(postgres: Postgres) -> Iterator[AppDatabase]:
    with app_database(postgres) as database:
        yield database


@pytest.fixture(params=["pg", "prisma"])
def backend(request: pytest.FixtureRequest, built: None, app: AppDatabase, tmp_path: Path) -> Iterator[Backend]:
    with ExitStack() as stack:
        yield Backend(app, tmp_path, request.param, stack)


@pytest.fixture
def secure(built: None, app: AppDatabase, tmp_path: Path) -> Iterator[Backend]:
    """As `backend`, but the Jobwire server speaks TLS."""
    with ExitStack() as stack:
        yield Backend(app, tmp_path, "pg", stack, tls=True)
