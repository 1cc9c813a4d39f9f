"""`jobwire top` against a real server: once, for programs, and on a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobwire import Client, FailForGood, Job, JobOptions, Worker
from tests.system.conftest import PATIENCE, ServerProcess, until

COMMAND = [sys.executable, "-m", "jobwire_server", "top"]


def environment(server: ServerProcess) -> dict[str, str]:
    return {**os.environ, "JOBWIRE_SERVER": server.address, "COLUMNS": "160", "LINES": "40", "TERM": "xterm"}


def started(server: ServerProcess, *arguments: str, **ends: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, *arguments, "-n", "0.2"], env=environment(server), **ends)


async def run(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [*COMMAND, *arguments],
        env=environment(server),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


async def test_one_look_shows_queues_sessions_and_failures(server: Callable[..., ServerProcess]) -> None:
    replica = server()
    worker = Worker(replica.address, name="the-worker", stop_grace=0)
    running = asyncio.Event()

    @worker.handler("mail")
    async def handle(job: Job) -> None:
        if job.data == "bad":
            raise FailForGood("no such address")
        running.set()
        await asyncio.Event().wait()

    async with Client(replica.address) as client, worker:
        bad = await client.publish("mail", "bad", options=JobOptions(retry_limit=0))
        await client.wait(bad.job_id, "mail", timeout=PATIENCE)
        good = await client.publish("mail", "good")
        await running.wait()
        await client.publish("mail", "later", start_in=3600)
        done = await run(replica, "--once", "--json")
        assert done.returncode == 0, done.stderr
        [look] = [json.loads(line) for line in done.stdout.splitlines()]
        [queue] = look["queues"]
        assert queue["name"] == "mail"
        assert {name: queue["counts"][name] for name in ("ready", "scheduled", "active", "failed")} == {
            "ready": 0,
            "scheduled": 1,
            "active": 1,
            "failed": 1,
        }
        [session] = look["sessions"]
        assert (session["worker"], session["in_flight"]) == ("the-worker", 1)
        assert [job["job_id"] for job in session["running"]] == [good.job_id]
        [failure] = look["failures"]
        assert (failure["job_id"], failure["type"], failure["message"]) == (
            bad.job_id,
            "FailForGood",
            "no such address",
        )
        told = await run(replica)
        assert told.returncode == 0
        assert "the-worker" in told.stdout and "FailForGood: no such address" in told.stdout


async def test_looks_go_on_for_programs(server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    replica = server()
    async with Client(replica.address) as client:
        await client.admin.create_queue("mail")
        output = tmp_path / "looks"
        with output.open("wb") as file:
            process = started(replica, "--json", stdout=file)
        try:
            await until(lambda: output.read_bytes().count(b"\n") >= 1)
            await client.publish("mail", 1)
            await until(
                lambda: any(
                    (json.loads(line)["queues"][0]["waiting_per_second"] or 0) > 0
                    for line in output.read_text().splitlines()[:-1]
                )
            )
        finally:
            process.terminate()
            process.wait()


async def test_on_a_terminal_q_leaves(server: Callable[..., ServerProcess]) -> None:
    replica = server()
    async with Client(replica.address) as client:
        await client.admin.create_queue("a-queue-of-ours")
    ours, theirs = pty.openpty()
    process = started(replica, stdin=theirs, stdout=theirs)
    os.close(theirs)
    seen = b""

    def read() -> None:
        nonlocal seen
        try:
            while part := os.read(ours, 65_536):
                seen += part
        except OSError:
            pass  # the terminal's other end is closed

    reading = asyncio.create_task(asyncio.to_thread(read))
    try:
        await until(lambda: b"a-queue-of-ours" in seen)
        replica.kill()
        await until(lambda: b"what is shown is older" in seen)
        os.write(ours, b"q")
        assert await asyncio.to_thread(process.wait, PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        await reading
        os.close(ours)


async def test_without_a_server_it_says_so(server: Callable[..., ServerProcess]) -> None:
    replica = server()
    replica.kill()
    done = await run(replica, "--once")
    assert done.returncode == 4 and "Traceback" not in done.stderr
