"""The command line without a server: what it says, where it says it, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobwire_server import __version__
from jobwire_server.cli import GRPC_EXPERIMENTS

COMMANDS = (
    "serve",
    "migrate",
    "recover",
    "publish",
    "work",
    "job",
    "jobs",
    "queues",
    "schedules",
    "sessions",
    "actions",
    "top",
    "demo",
    "version",
)

NOWHERE = "127.0.0.1:1"
"""Nobody listens there."""


def jobwire(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, with no setting but those given."""
    clean = {name: value for name, value in os.environ.items() if not name.endswith("DATABASE_URL")}
    clean = {name: value for name, value in clean.items() if not name.startswith("JOBWIRE_")}
    return subprocess.run(
        [sys.executable, "-m", "jobwire_server", *arguments],
        input=stdin,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_version_prints_the_version_and_nothing_else() -> None:
    done = jobwire("version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


def test_grpc_knows_what_it_is_asked_to_leave_out() -> None:
    """Whoever raises its version to one that knows no other listener learns from this that the option can go."""
    serve = "import asyncio, grpc\nasync def main(): grpc.aio.server()\nasyncio.run(main())"
    done = subprocess.run(
        [sys.executable, "-c", serve],
        env=os.environ | {"GRPC_EXPERIMENTS": GRPC_EXPERIMENTS},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_quick_command_loads_no_heavy_library() -> None:
    check = (
        "import sys; from jobwire_server.cli import app; app(['version'], standalone_mode=False); "
        "print(sorted({'grpc', 'google', 'psycopg', 'starlette', 'uvicorn', 'rich'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [__version__, "[]"]


def test_help_lists_the_commands_and_the_exit_codes() -> None:
    done = jobwire("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f" {command} " in done.stdout
    assert "Exit codes: 0 all went well;" in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = jobwire(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"jobwire {command}" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("publish",),
        ("job",),
        ("queues", "nonsense"),
        ("serve", "--nonsense"),
        ("publish", "mail", "{nope", "--server", NOWHERE),
        ("publish", "mail", "NaN", "--server", NOWHERE),
        ("publish", "mail", "[" * 100_000, "--server", NOWHERE),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_wrong_usage_and_wrong_input_end_with_2(arguments: Sequence[str]) -> None:
    done = jobwire(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_away_ends_every_call_with_4() -> None:
    job_id = "01890a5d-ac96-774b-bcce-b302099a8057"
    lines = "".join(json.dumps({"n": n}) + "\n" for n in range(501))
    calls: list[tuple[tuple[str, ...], str]] = [
        (("publish", "mail", "{}"), ""),
        (("publish", "mail"), lines),
        (("job", job_id), ""),
        (("jobs", "cancel", job_id, "--queue", "mail"), ""),
        (("queues",), ""),
        (("queues", "create", "mail", "--json"), ""),
    ]
    # Side by side: each gives the server some seconds.
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda each: jobwire(*each[0], stdin=each[1], JOBWIRE_SERVER=NOWHERE), calls))
    for done in ended:
        assert (done.returncode, done.stdout) == (4, "")
        assert NOWHERE in done.stderr
        assert "Traceback" not in done.stderr
    assert "lines 1 to 500 may have been published or not" in ended[1].stderr


@pytest.mark.parametrize("arguments", [("migrate",), ("migrate", "--check"), ("recover", "--yes")], ids=" ".join)
def test_a_database_that_is_away_ends_them_with_4_and_stays_secret(arguments: Sequence[str]) -> None:
    done = jobwire(*arguments, DATABASE_URL="postgresql://user:s3cret@127.0.0.1:1/app")
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot reach the database postgresql://user:***@127.0.0.1:1/app" in done.stderr
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_mistake_in_the_settings_ends_them_with_2_and_is_named(command: str) -> None:
    done = jobwire(command, DATABASE_URL="postgresql://127.0.0.1:1/app", JOBWIRE_POOL_SIZ="3")
    assert (done.returncode, done.stdout) == (2, "")
    assert "JOBWIRE_POOL_SIZ: there is no such setting; did you mean JOBWIRE_POOL_SIZE?" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_without_a_database_says_what_to_do() -> None:
    done = jobwire("serve")
    assert done.returncode == 2
    assert "DATABASE_URL" in done.stderr
    assert "--embedded" in done.stderr


def test_serve_takes_one_database_and_not_two() -> None:
    done = jobwire("serve", "--embedded", DATABASE_URL="postgresql://127.0.0.1:1/app")
    assert done.returncode == 2
    assert "exclude each other" in done.stderr


def test_recover_asks_first() -> None:
    done = jobwire("recover", stdin="n\n", DATABASE_URL="postgresql://127.0.0.1:1/app")
    assert (done.returncode, done.stdout) == (1, "")
    assert "gives every running job back" in done.stderr
    assert "nothing was changed" in done.stderr


def test_no_jobs_on_standard_input_is_no_error_of_ours() -> None:
    done = jobwire("publish", "mail", "-", stdin="\n\n", JOBWIRE_SERVER=NOWHERE)
    assert done.returncode == 0
    assert "published 0 jobs" in done.stderr


def test_a_bad_first_line_is_named() -> None:
    done = jobwire("publish", "mail", stdin='\n{"a": 1\n{}\n', JOBWIRE_SERVER=NOWHERE)
    assert done.returncode == 2
    assert "line 2 is not JSON that can be published" in done.stderr
    assert "0 jobs were published" in done.stderr
