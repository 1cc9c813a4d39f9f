"""`jobwire work` as it is used: a server, a worker and its commands, all real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobwire import Client, JobInfo, JobOptions, JobState
from tests.system.conftest import PATIENCE, Process, ServerProcess, until


@pytest.fixture
def replica(server: Callable[..., ServerProcess]) -> ServerProcess:
    return server()


@pytest.fixture
async def client(replica: ServerProcess) -> AsyncIterator[Client]:
    async with Client(replica.address) as client:
        yield client


@dataclass
class Work(Process):
    """A running `jobwire work`."""

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]


@pytest.fixture
def work(replica: ServerProcess, tmp_path: Path) -> Iterator[Callable[..., Work]]:
    """`work("mail", script="exit 0")` starts a worker whose command is a shell script; it is stopped after the test."""
    with ExitStack() as stack:

        def start(*arguments: str, script: str) -> Work:
            command = [sys.executable, "-m", "jobwire_server", "work", *arguments, "--", "sh", "-c", script, "sh"]
            environment = {**os.environ, "JOBWIRE_SERVER": replica.address, "FOLDER": str(tmp_path)}
            process = Work(command, environment, tmp_path / "work.log")
            process.start()
            stack.callback(process.stop)
            return process

        yield start


async def ended(client: Client, queue: str, data: object, **options: Any) -> JobInfo:
    published = await client.publish(queue, data, **options)
    return await client.wait(published.job_id, queue, timeout=PATIENCE)


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def pids(*files: Path) -> list[int]:
    """The process ids that commands wrote down, as soon as they have."""
    await until(lambda: all(file.exists() and file.read_text().endswith("\n") for file in files))
    return [int(word) for file in files for word in file.read_text().split()]


HANG = 'sleep 600 & echo $! $$ > "$FOLDER/pids"; wait'


async def test_a_command_gets_payload_and_facts_and_gives_an_output(client: Client, work: Callable[..., Work]) -> None:
    working = work(
        "mail",
        "print",
        script='echo about to work >&2; printf \'{"data": %s, "facts": "%s"}\' "$(cat)" '
        '"$JOBWIRE_QUEUE $JOBWIRE_JOB_ID $JOBWIRE_ATTEMPT $JOBWIRE_RETRY_LIMIT $JOBWIRE_HEADER_TRACEPARENT '
        '$JOBWIRE_SERVER"',
    )
    for queue in ("mail", "print"):
        options = JobOptions(retry_limit=4)
        job = await ended(client, queue, {"to": "ä", "n": [1, None]}, headers={"traceparent": "00-ab"}, options=options)
        assert job.state is JobState.COMPLETED
        assert job.output["data"] == {"to": "ä", "n": [1, None]}
        assert job.output["facts"].split()[:5] == [queue, job.id, "1", "4", "00-ab"]
        assert job.output["facts"].endswith(working.env["JOBWIRE_SERVER"])
    said = working.events("command says")
    assert [(line["job"], line["line"]) for line in said][-1] == (job.id, "about to work")
    assert {line["code"] for line in working.events("command ended")} == {0}


async def test_what_exit_codes_mean(client: Client, work: Callable[..., Work]) -> None:
    await client.admin.create_queue("mail", options=JobOptions(retry_limit=1, retry_delay=0))
    work(
        "mail",
        "-c",
        "2",
        script="code=$(cat); echo first >&2; echo the end >&2; "
        'test "$code" = 75 -a "$JOBWIRE_ATTEMPT" = 2 && exit 0; test "$code" = 9 && kill -9 $$; exit "$code"',
    )
    done = await ended(client, "mail", 0)
    assert (done.state, done.output, done.errors) == (JobState.COMPLETED, None, ())
    failed = await ended(client, "mail", 3)
    assert (failed.state, failed.attempt) == (JobState.FAILED, 2)
    assert [(error.type, error.message, error.trace) for error in failed.errors] == [
        ("CommandFailed", "exit code 3: the end", "first\nthe end")
    ] * 2
    never = await ended(client, "mail", 65)
    assert (never.state, never.attempt, never.errors[0].type) == (JobState.FAILED, 1, "DataRefused")
    later = await ended(client, "mail", 75)
    assert (later.state, later.attempt, later.release_count, later.retry_count) == (JobState.COMPLETED, 2, 1, 0)
    killed = await ended(client, "mail", 9)
    assert killed.errors[0].message == "killed by SIGKILL: the end"


async def test_progress_is_reported_in_lines(client: Client, work: Callable[..., Work], tmp_path: Path) -> None:
    working = work(
        "mail",
        script='echo nonsense > "$JOBWIRE_PROGRESS"; echo nonsense > "$JOBWIRE_PROGRESS"; '
        'echo "{\\"extend\\": 7000}" > "$JOBWIRE_PROGRESS"; echo "50% half of it" > "$JOBWIRE_PROGRESS"; '
        'until test -e "$FOLDER/go"; do sleep 0.05; done; (echo "1 all of it" > "$JOBWIRE_PROGRESS")',
    )
    job_id = (await client.publish("mail", 1)).job_id
    seen = await client.get_job(job_id, "mail")
    async with asyncio.timeout(PATIENCE):
        while seen.progress is None:
            await asyncio.sleep(0.05)
            seen = await client.get_job(job_id, "mail")
    assert (seen.progress.fraction, seen.progress.note) == (0.5, "half of it")
    (tmp_path / "go").touch()
    assert (await client.wait(job_id, "mail", timeout=PATIENCE)).state is JobState.COMPLETED
    (warning,) = working.events("a line about the progress means nothing")
    assert warning["line"] == "nonsense"


async def test_a_checkpoint_is_handed_to_the_next_run(client: Client, work: Callable[..., Work]) -> None:
    work(
        "mail",
        script='echo "${JOBWIRE_CHECKPOINT:-nothing}"; test -n "$JOBWIRE_CHECKPOINT" && exit 0; '
        'echo "{\\"fraction\\": 0.5, \\"checkpoint\\": {\\"page\\": 7}}" > "$JOBWIRE_PROGRESS"; exit 75',
    )
    job = await ended(client, "mail", 1)
    assert (job.state, job.attempt, job.output, job.checkpoint) == (JobState.COMPLETED, 2, {"page": 7}, {"page": 7})


async def test_the_time_limit_ends_all_of_the_group(client: Client, work: Callable[..., Work], tmp_path: Path) -> None:
    work("mail", script=HANG)
    job = await ended(client, "mail", 1, options=JobOptions(expire_in=1, retry_limit=0))
    assert (job.state, job.errors[0].type) == (JobState.FAILED, "EXPIRED")
    for pid in await pids(tmp_path / "pids"):
        await until(lambda pid=pid: not alive(pid))


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_cancelled_command_has_its_grace(
    client: Client, work: Callable[..., Work], tmp_path: Path, stubborn: bool
) -> None:
    trap = "" if stubborn else 'touch "$FOLDER/told"; sleep 0.3; touch "$FOLDER/cleaned"; exit'
    work(
        "mail",
        "--kill-after",
        "0.5" if stubborn else "60",
        script=f"trap '{trap}' TERM; echo $$ > \"$FOLDER/pids\"; while :; do sleep 0.1; done",
    )
    job_id = (await client.publish("mail", 1)).job_id
    (pid,) = await pids(tmp_path / "pids")
    await client.admin.cancel_jobs("mail", [job_id])
    assert (await client.wait(job_id, "mail", timeout=PATIENCE)).state is JobState.CANCELLED
    await until(lambda: not alive(pid))
    assert (tmp_path / "cleaned").exists() is not stubborn


async def test_sigterm_lets_commands_finish(client: Client, work: Callable[..., Work], tmp_path: Path) -> None:
    working = work("mail", script='echo $$ > "$FOLDER/pids"; until test -e "$FOLDER/go"; do sleep 0.05; done; echo 7')
    first, second = [(await client.publish("mail", n)).job_id for n in range(2)]
    await pids(tmp_path / "pids")
    working.send(signal.SIGTERM)
    await until(lambda: "finishing what runs" in working.text())
    (tmp_path / "go").touch()
    assert await asyncio.to_thread(working.ends) == 0
    finished = await client.get_job(first, "mail")
    assert (finished.state, finished.output) == (JobState.COMPLETED, 7)
    assert (await client.get_job(second, "mail")).state is JobState.CREATED


async def test_a_second_signal_gives_back(client: Client, work: Callable[..., Work], tmp_path: Path) -> None:
    working = work("mail", script=HANG)
    job_id = (await client.publish("mail", 1)).job_id
    running = await pids(tmp_path / "pids")
    working.send(signal.SIGTERM)
    await until(lambda: "finishing what runs" in working.text())
    working.send(signal.SIGTERM)
    assert await asyncio.to_thread(working.ends) == 0
    job = await client.get_job(job_id, "mail")
    assert (job.state, job.release_count, job.loss_count, job.retry_count) == (JobState.RETRY, 1, 0, 0)
    assert not any(alive(pid) for pid in running)


async def test_commands_do_not_outlive_a_worker_that_is_killed(
    client: Client, work: Callable[..., Work], tmp_path: Path
) -> None:
    working = work("mail", script=HANG)
    await client.publish("mail", 1)
    running = await pids(tmp_path / "pids")
    assert all(alive(pid) for pid in running)
    working.kill()
    for pid in running:
        await until(lambda pid=pid: not alive(pid))


async def test_what_a_command_leaves_behind_is_ended_and_not_waited_for(
    client: Client, work: Callable[..., Work], tmp_path: Path
) -> None:
    work("mail", script='sleep 600 & echo $! > "$FOLDER/pids"; setsid sleep 600 & echo $! > "$FOLDER/away"; echo 1')
    job = await ended(client, "mail", 1)
    assert (job.state, job.output) == (JobState.COMPLETED, 1)
    (left,) = await pids(tmp_path / "pids")
    (away,) = await pids(tmp_path / "away")
    await until(lambda: not alive(left))
    if alive(away):  # it left the group, and holds the pipes
        os.kill(away, signal.SIGKILL)


async def test_several_commands_run_at_once(client: Client, work: Callable[..., Work]) -> None:
    meeting = 'me=$(cat); touch "$FOLDER/$me"; until test -e "$FOLDER/0" -a -e "$FOLDER/1"; do sleep 0.05; done'
    work("mail", "--concurrency", "2", script=meeting)
    jobs = await asyncio.gather(*(ended(client, "mail", n) for n in range(2)))
    assert {job.state for job in jobs} == {JobState.COMPLETED}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mail"], "which command?"),
        (["mail", "--"], "which command?"),
        (["--", "true"], "QUEUE"),
        (["mail", "--", "no-such-program"], "no program 'no-such-program'"),
        (["mail", "mail", "--", "true"], "has a handler already"),
        (["ma.il", "--", "true"], "must be 1 to 63 letters"),
    ],
    ids=["no dashes", "no command", "no queue", "no program", "twice", "no name"],
)
def test_what_makes_no_sense_is_refused(
    replica: ServerProcess, tmp_path: Path, arguments: list[str], said: str
) -> None:
    command = [sys.executable, "-m", "jobwire_server", "work", *arguments]
    process = Process(command, {**os.environ, "JOBWIRE_SERVER": replica.address}, tmp_path / "work.log")
    process.start()
    assert process.ends() == 2
    assert said in process.text() and "Traceback" not in process.text()
