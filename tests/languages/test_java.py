"""The Java client as its users have it: built, its own tests against the real server, its page's programs run.

It is built in a copy of its folder: Maven clears away what it compiled before, and the conformance suite may be running
that at the same time.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from jobwire import Client, JobState
from tests.conformance.driver import Driver
from tests.system.conftest import Process, ServerProcess

ROOT = Path(__file__).resolve().parents[2]

Server = Callable[..., ServerProcess]


def missing() -> str:
    """What there is not, of what a build takes; empty: all is there."""
    if shutil.which("mvn") is None or shutil.which("javac") is None:
        return "Maven or a JDK is not installed"
    said = subprocess.run(["javac", "-version"], capture_output=True, text=True, check=False)
    version = re.search(r"javac (\d+)", said.stdout + said.stderr)
    return "" if version and int(version[1]) >= 17 else "the JDK is older than 17"


# The first build of a machine fetches what Maven itself needs.
pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing() or "-"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's folder, built."""
    root = tmp_path_factory.mktemp("java")
    shutil.copytree(ROOT / "protos", root / "protos")
    folder = root / "clients" / "java"
    shutil.copytree(ROOT / "clients" / "java", folder, ignore=shutil.ignore_patterns("target"))
    maven(folder, "package", "-DskipTests")
    return folder


def maven(folder: Path, *arguments: str, **env: str) -> None:
    command = ["mvn", "--quiet", "--batch-mode", "--no-transfer-progress", *arguments]
    done = subprocess.run(command, cwd=folder, env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"


def java(folder: Path, *arguments: str | Path) -> list[str]:
    """A command that runs a class, or a program in one file, with the client."""
    classes = ":".join(f"{folder}/target/{part}" for part in ("classes", "test-classes", "lib/*"))
    return ["java", "-cp", classes, *map(str, arguments)]


def said_by(command: list[str]) -> str:
    """What a program says; fails if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def running(command: list[str], log: Path) -> Iterator[Process]:
    process = Process(command, dict(os.environ), log)
    process.start()
    try:
        yield process
    finally:
        process.stop()


def test_its_own_tests_pass_against_the_server(folder: Path, server: Server) -> None:
    maven(folder, "surefire:test", JOBWIRE_SERVER=server().address)
    reports = [ET.parse(path).getroot() for path in (folder / "target/surefire-reports").glob("*.xml")]
    assert len(reports) >= 3
    assert all(int(report.attrib["tests"]) > 0 and report.attrib["skipped"] == "0" for report in reports)


def test_the_programs_of_its_page_publish_and_work(folder: Path, server: Server, tmp_path: Path) -> None:
    """And the worker ends with 0 after SIGTERM, as the page says."""
    address = server().address
    for block in re.findall(r"```java\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL):
        name = re.search(r"public class (\w+)", block)
        assert name
        (tmp_path / f"{name[1]}.java").write_text(block.replace("127.0.0.1:50051", address))
    with running(java(folder, tmp_path / "MailWorker.java"), tmp_path / "worker.log") as worker:
        said = said_by(java(folder, tmp_path / "Publish.java"))
        assert said == 'COMPLETED {"status":"sent"} []\n', worker.text()
        assert said_by(java(folder, tmp_path / "Operate.java")) == "CANCEL_STATUS_CANCELLED\n"
        worker.running.terminate()
        assert worker.ends() == 0, worker.text()


def test_the_thin_examples_publish_and_work(folder: Path, server: Server, tmp_path: Path) -> None:
    address = server().address
    data = '{"file_key": "a.xlsx"}'

    async def finished(job_id: str) -> None:
        async with Client(address) as client:
            job = await client.wait(job_id, "hello", timeout=60)
        assert (job.state, job.output) == (JobState.COMPLETED, {"length": len(data)})

    with running(
        java(folder, folder / "examples/ThinWorker.java", address, "hello"), tmp_path / "worker.log"
    ) as worker:
        job_id = said_by(java(folder, folder / "examples/ThinPublisher.java", address, "hello", data)).strip()
        asyncio.run(finished(job_id))
        assert data in worker.text()


async def test_a_second_signal_gives_back_what_runs(folder: Path, server: Server, tmp_path: Path) -> None:
    """The grace is long; the JVM itself would not even notice the second one."""
    address = (await asyncio.to_thread(server)).address
    async with (
        Driver(java(folder, "conformance.Driver"), tmp_path / "driver.log") as driver,
        Client(address) as client,
    ):
        await driver.connect(address)
        await driver.work("q", stop_grace=600)
        job_id = (await client.publish("q", "held")).job_id
        await driver.started(job_id)
        driver.terminate()
        async with asyncio.timeout(60):
            while [session.max_in_flight async for session in client.admin.list_sessions("q")] != [0]:
                await asyncio.sleep(0.1)
        assert not driver.said("stopping")
        driver.terminate()
        await driver.hears("stopping", job_id=job_id, reason="stopping")
        assert await driver.ends() == 0
        job = await client.get_job(job_id, "q")
        assert (job.state, job.retry_count, job.release_count) == (JobState.RETRY, 0, 1)
