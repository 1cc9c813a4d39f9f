"""The example, built by the commands of its page; a database, a server and the example's processes for each test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Postgres
from tests.examples.backend import CLIENT, EXAMPLE, INSTALL, AppDatabase, Backend, app_database


@pytest.fixture(scope="session")
def built() -> None:
    """The client and the example, installed and compiled."""
    for program in ("npm", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    if not (CLIENT / "dist").is_dir():
        _run("npm ci && npm run build", CLIENT)
    _run(INSTALL.code, EXAMPLE)


@pytest.fixture
def app(postgres: Postgres) -> Iterator[AppDatabase]:
    with app_database(postgres) as database:
        yield database


@pytest.fixture(params=["pg", "prisma"])
def backend(request: pytest.FixtureRequest, built: None, app: AppDatabase, tmp_path: Path) -> Iterator[Backend]:
    with ExitStack() as stack:
        yield Backend(app, tmp_path, request.param, stack)


def _run(commands: str, folder: Path) -> None:
    command = ["sh", "-ec", commands]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
