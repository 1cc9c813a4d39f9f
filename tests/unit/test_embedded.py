"""The embedded PostgreSQL, with real servers: what it keeps, what it survives, and what it leaves alone."""

from __future__ import annotations

import gc
import os
import pwd
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from jobwire_server.embedded import EmbeddedPostgres, EmbeddedPostgresError, find_binaries
from jobwire_server.unprivileged import choose_runner

SYSTEM_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="jobwire-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=[None, *SYSTEM_BINARIES], ids=lambda path: path.parent.name if path else "wheel")
def postgres(request: pytest.FixtureRequest, folder: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(folder / "data", binaries=request.param) as postgres:
        yield postgres


def ask(postgres: EmbeddedPostgres, query: str) -> object:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def remember(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.dsn) as connection:
        connection.execute("CREATE TABLE remembered AS SELECT 42 AS answer")


def remembered(postgres: EmbeddedPostgres) -> object:
    return ask(postgres, "SELECT answer FROM remembered")


def permissions(path: Path) -> dict[Path, tuple[int, int]]:
    """Mode and owner of a folder and of all above it."""
    return {parent: (parent.stat().st_mode, parent.stat().st_uid) for parent in (path, *path.parents)}


def server_pid(postgres: EmbeddedPostgres) -> int:
    return int((postgres.data_dir / "cluster/postmaster.pid").read_text().splitlines()[0])


def test_it_is_durable_and_speaks_utf8(postgres: EmbeddedPostgres) -> None:
    assert ask(postgres, "SHOW fsync") == "on"
    assert ask(postgres, "SHOW synchronous_commit") == "on"
    assert ask(postgres, "SHOW server_encoding") == "UTF8"
    assert ask(postgres, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == "C"
    assert str(ask(postgres, "SHOW server_version")).split()[0] == postgres.version


def test_a_crash_loses_nothing_committed_and_the_address_stays(postgres: EmbeddedPostgres) -> None:
    remember(postgres)
    dsn = postgres.dsn
    postgres.kill()
    assert not postgres.running
    postgres.start()
    assert postgres.dsn == dsn
    assert remembered(postgres) == 42
    assert "automatic recovery in progress" in postgres.log_path.read_text()


def test_it_comes_back_after_a_sigkill_with_clients_connected(postgres: EmbeddedPostgres) -> None:
    remember(postgres)
    with psycopg.connect(postgres.dsn, autocommit=True) as client:
        os.kill(server_pid(postgres), signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT pg_sleep(60)")
        assert postgres._server is not None
        postgres._server.wait()
        postgres.start()
    assert remembered(postgres) == 42


def test_stopping_and_starting_twice_is_fine(postgres: EmbeddedPostgres) -> None:
    remember(postgres)
    pid = server_pid(postgres)
    postgres.start()
    assert server_pid(postgres) == pid
    postgres.stop()
    postgres.stop()
    assert not postgres.running
    with postgres:
        assert remembered(postgres) == 42


def test_settings_and_port_are_as_given(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"work_mem": "5MB", "jobwire.note": "two words"}
    with EmbeddedPostgres(folder / "data", port=port, settings=settings) as postgres:
        assert ask(postgres, "SHOW work_mem") == "5MB"
        assert ask(postgres, "SHOW jobwire.note") == "two words"
        assert ask(postgres, "SHOW port") == str(port)
        assert ask(postgres, "SHOW listen_addresses") == "127.0.0.1"


def test_it_asks_for_its_password(folder: Path) -> None:
    with (
        EmbeddedPostgres(folder / "data") as postgres,
        pytest.raises(psycopg.OperationalError, match="password"),
    ):
        psycopg.connect(postgres.dsn, password="guessed")


def test_a_refused_start_shows_the_log(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder / "data", settings={"shared_buffers": "plenty"})
    with pytest.raises(EmbeddedPostgresError, match='invalid value for parameter "shared_buffers"'):
        postgres.start()
    assert not postgres.running
    postgres.settings.clear()
    with postgres:
        assert ask(postgres, "SELECT 1") == 1


def test_there_is_no_address_before_the_first_start(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="never started"):
        _ = EmbeddedPostgres(folder / "data").dsn


def test_a_folder_in_use_is_refused(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data") as first:
        remember(first)
        with pytest.raises(EmbeddedPostgresError, match="another process uses"):
            EmbeddedPostgres(folder / "data").start()
        assert remembered(first) == 42


def test_a_pid_file_whose_number_has_a_new_owner_is_no_obstacle(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data") as postgres:
        pid_file = postgres.data_dir / "cluster/postmaster.pid"
        content = pid_file.read_text().splitlines()
    runner = choose_runner(postgres.binaries / "postgres", postgres.data_dir)
    assert runner is not None
    stranger = runner.popen("sleep", "600", cwd=folder, log=subprocess.DEVNULL)
    try:
        pid_file.write_text("\n".join([str(stranger.pid), *content[1:]]))
        with postgres:
            assert ask(postgres, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_left_running_is_taken_over(folder: Path) -> None:
    leftover = EmbeddedPostgres(folder / "data")
    leftover.start()
    remember(leftover)
    leftover._guards.pop_all().close()  # neither lock nor guardian: what is left when both processes were killed
    assert leftover.running
    with EmbeddedPostgres(folder / "data") as postgres:
        assert remembered(postgres) == 42
        assert not leftover.running


def test_one_that_is_dropped_without_a_stop_stops(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder / "data")
    postgres.start()
    server = postgres._server
    assert server is not None
    del postgres
    gc.collect()
    assert server.wait(60) == 0


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process that is no child, as only Linux can")
def test_it_does_not_outlive_a_process_that_is_killed(folder: Path) -> None:
    program = (
        "import sys, pathlib, jobwire_server.embedded as e\n"
        "e.EmbeddedPostgres(pathlib.Path(sys.argv[1])).start()\n"
        "print('started', flush=True)\n"
        "sys.stdin.read()\n"
    )
    data = folder / "data"
    with subprocess.Popen(
        [sys.executable, "-c", program, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "started\n"
        server = os.pidfd_open(server_pid(EmbeddedPostgres(data)))
        owner.kill()
    try:
        assert select.select([server], [], [], 60)[0], "PostgreSQL still runs"
    finally:
        os.close(server)
    assert "database system is shut down" in (data / "postgres.log").read_text()


@as_root
def test_root_runs_it_as_nobody_where_nobody_may_go(folder: Path) -> None:
    before = permissions(folder)
    with EmbeddedPostgres(folder / "data") as postgres:
        owner = postgres.data_dir.stat().st_uid
    if owner == 0:
        pytest.skip("the binaries are in a folder that is closed to nobody")
    assert owner == pwd.getpwnam("nobody").pw_uid
    assert permissions(folder) == before


@as_root
def test_root_keeps_closed_folders_closed(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    before = permissions(closed) | permissions(find_binaries())
    try:
        with EmbeddedPostgres(closed / "data") as postgres:
            assert ask(postgres, "SELECT 1") == 1
            assert postgres.data_dir.stat().st_uid == 0
    except EmbeddedPostgresError as error:
        if "user namespaces" not in str(error):
            raise
        pytest.skip("this system allows no user namespaces")
    assert permissions(closed) | permissions(find_binaries()) == before
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_root_can_open_a_closed_folder_later(folder: Path) -> None:
    """Who the files belong to follows who PostgreSQL runs as."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    postgres = EmbeddedPostgres(closed / "data")
    try:
        with postgres:
            remember(postgres)
    except EmbeddedPostgresError:
        pytest.skip("this system allows no user namespaces")
    closed.chmod(0o711)
    with postgres:
        assert remembered(postgres) == 42
    closed.chmod(0o700)
    with postgres:
        assert remembered(postgres) == 42


@as_root
def test_root_with_no_way_out_is_told_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(EmbeddedPostgresError, match="refuses to run as root"):
        EmbeddedPostgres(closed / "data").start()
