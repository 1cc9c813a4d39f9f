"""A real PgBouncer, in transaction mode, before a PostgreSQL."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from jobwire_server.embedded import _stopped_with_us
from jobwire_server.unprivileged import choose_runner
from tests.system.conftest import free_port

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CONFIG = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
logfile = {folder}/pgbouncer.log
pool_mode = transaction
default_pool_size = {size}
server_login_retry = 1
"""

# But for what PgBouncer itself sets, so that a session fits the client it serves.
_LEFTOVERS = """
SELECT name FROM pg_settings WHERE source = 'session'
    AND name NOT IN ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings')
UNION ALL SELECT name FROM pg_prepared_statements
UNION ALL SELECT pg_listening_channels()
"""


class PgBouncer:
    """A context manager around the process, which keeps its port over restarts. All it writes is in `folder`.

    Few connections serve all its clients, so each of them meets the sessions that others used.
    """

    def __init__(self, dsn: str, folder: Path, size: int = 5) -> None:
        given = conninfo_to_dict(dsn)
        port = free_port()
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=port)
        self.log = folder / "pgbouncer.log"
        self._folder = folder
        self._port = port
        self._size = size
        self._guard = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "users.txt").write_text(f'"{given["user"]}" "{given.get("password", "")}"\n')
        facts = {"host": given["host"], "port": given.get("port", 5432), "listen": port, "folder": folder, "size": size}
        (folder / "pgbouncer.ini").write_text(CONFIG.format(**facts))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        assert PROGRAM is not None
        runner = choose_runner(Path(PROGRAM), self._folder)
        assert runner is not None, f"{PROGRAM} cannot be run in {self._folder}"
        runner.own(self._folder)
        self._process = runner.popen(
            Path(PROGRAM), self._folder / "pgbouncer.ini", cwd=self._folder, log=subprocess.DEVNULL
        )
        self._guard.enter_context(_stopped_with_us(self._process.pid))
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                assert self._process.poll() is None, f"pgbouncer ended:\n{self.log.read_text()}"
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._guard.close()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def leftovers(self) -> list[str]:
        """What clients left behind in the sessions they share: settings, prepared statements, channels."""
        found: set[str] = set()
        with ExitStack() as stack:
            # As many at once as there are sessions, to look into each.
            for _ in range(self._size):
                connection = stack.enter_context(psycopg.connect(self.dsn, prepare_threshold=None))
                found.update(name for [name] in connection.execute(_LEFTOVERS).fetchall())
        return sorted(found)
