"""The Rust client as its users have it: built, its own tests against the real server, its examples run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.conftest import Process, ServerProcess

FOLDER = Path(__file__).resolve().parents[2] / "clients" / "rust"
EXAMPLES = FOLDER / "target" / "debug" / "examples"

# The first build of a machine compiles tonic and all below it.
pytestmark = [
    pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not installed"),
    pytest.mark.timeout(900),
]


def cargo(*arguments: str, **env: str) -> str:
    """What cargo says; fails with that if it fails."""
    done = subprocess.run(
        ["cargo", *arguments], cwd=FOLDER, env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"cargo {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def examples() -> Path:
    """The folder of the programs, which are those of the sources as they are now."""
    cargo("build", "--quiet", "--examples")
    return EXAMPLES


def test_it_is_formatted() -> None:
    if shutil.which("rustfmt") is None:
        pytest.skip("rustfmt is not installed")
    cargo("fmt", "--check")


def test_its_own_tests_pass_against_the_server(server: Callable[..., ServerProcess]) -> None:
    said = cargo("test", "--quiet", JOBWIRE_SERVER=server().address)
    assert said.count("test result: ok.") >= 4, "publishing, working, those in the sources, and the README's"


def test_the_thin_examples_publish_and_work(
    server: Callable[..., ServerProcess], examples: Path, tmp_path: Path
) -> None:
    url = f"http://{server().address}"
    worker = Process([str(examples / "thin_worker"), url, "hello"], dict(os.environ), tmp_path / "worker.log")
    worker.start()
    try:
        publish = [str(examples / "publish"), url, "hello", '{"file_key": "a.xlsx"}']
        job_id = subprocess.run(publish, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
        get = ["jobwire", "job", job_id, "--queue", "hello", "--watch", "--json"]
        env = os.environ | {"JOBWIRE_SERVER": url.removeprefix("http://")}
        shown = subprocess.run(get, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert '"completed"' in shown.stdout, shown.stdout + shown.stderr + worker.text()
        assert f'{job_id} {{"file_key": "a.xlsx"}}' in worker.text()
    finally:
        worker.stop()
