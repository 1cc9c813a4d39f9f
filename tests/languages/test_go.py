"""The Go client as its users have it: generated and built, its own tests against the real server, its examples run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import LONG
from tests.system.conftest import Process, ServerProcess

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "clients" / "go"
STUBS = FOLDER / "v1" / "queue_service.pb.go"

# The first build of a machine compiles gRPC.
pytestmark = [
    pytest.mark.skipif(shutil.which("go") is None, reason="go is not installed"),
    pytest.mark.timeout(900),
]


def run(*command: str, **env: str) -> str:
    """What a command says, in the client's folder; fails with that if the command does."""
    done = subprocess.run(command, cwd=FOLDER, env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def module() -> None:
    """The stubs are those of the contract as it is now."""
    contract = max(proto.stat().st_mtime for proto in (ROOT / "protos").rglob("*.proto"))
    if not STUBS.exists() or STUBS.stat().st_mtime < contract:
        run(str(Path(sys.executable).with_name("buf")), "generate", "../../protos")


def watches_for_races() -> bool:
    """The race detector compiles everything anew, is C, and is linked in by a C compiler."""
    return LONG and run("go", "env", "CGO_ENABLED").strip() == "1" and shutil.which("gcc") is not None


@pytest.mark.usefixtures("module")
def test_its_own_tests_pass_against_the_server(server: Callable[..., ServerProcess]) -> None:
    race = ["-race"] if watches_for_races() else []
    said = run("go", "test", *race, "-count=1", "-v", "./...", JOBWIRE_SERVER=server().address)
    assert "--- PASS" in said and "--- SKIP" not in said


@pytest.mark.usefixtures("module")
def test_the_thin_examples_publish_and_work(server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    address = server().address
    run("go", "build", "-o", f"{tmp_path}/", "./examples/...")
    worker = Process([str(tmp_path / "thinworker"), address, "mail"], dict(os.environ), tmp_path / "worker.log")
    worker.start()
    try:
        # It waits for the end of what it publishes, for a minute at most.
        shown = run(str(tmp_path / "publish"), address, "mail", '{"to": "a@example.org"}')
        assert shown == 'JOB_STATE_COMPLETED {"sent": true}\n', worker.text()
        assert 'working on {"to": "a@example.org"}' in worker.text()
    finally:
        worker.stop()
