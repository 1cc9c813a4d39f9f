"""The example backend as its users have it: its database and role, its processes by npm, its routes over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.conformance.certificates import Authority
from tests.conftest import Postgres
from tests.docs.pages import REPOSITORY, blocks_of
from tests.system.conftest import PATIENCE, ServerProcess, free_port

EXAMPLE = REPOSITORY / "clients" / "node" / "examples" / "fastify"
README = (EXAMPLE / "README.md").read_text()
BLOCKS = blocks_of(README)
INSTALL = next(block for block in BLOCKS if "npm ci" in block.code)
GRANTS = "".join(re.findall(r"```sql\n(.*?)```", README, re.DOTALL))


TOKEN = "a-token-of-the-backend"

T = TypeVar("T")


@dataclass(frozen=True)
class AppDatabase:
    """A database of the application's own: `admin` for the Jobwire server and the test, `url` for the application."""

    admin: str
    url: str
    role: str

    def grant(self) -> None:
        """Gives the role what the page says it needs; Jobwire's schema must be there."""
        self.run(re.sub(r"\bapp\b", self.role, GRANTS))

    def run(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.admin, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def app_database(postgres: Postgres) -> Iterator[AppDatabase]:
    """An empty database that belongs to a role without any other right."""
    role = f"app_{secrets.token_hex(5)}"
    password = secrets.token_hex(8)
    admin = make_conninfo(postgres.dsn, dbname=role)
    known = conninfo_to_dict(admin)
    url = f"postgresql://{role}:{password}@{known['host']}:{known.get('port', 5432)}/{role}"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'".encode())
        connection.execute(f"CREATE DATABASE {role} OWNER {role}".encode())
        try:
            yield AppDatabase(admin, url, role)
        finally:
            connection.execute(f"DROP DATABASE {role} WITH (FORCE)".encode())
            connection.execute(f"DROP ROLE {role}".encode())


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Program:
    """`npm run NAME` and what it starts, with their output in a file."""

    running: subprocess.Popen[bytes]
    output: Path

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def says(self, words: str) -> re.Match[str]:
        """Waits for a line."""
        return wait_for(lambda: re.search(words, self.text()), self.text, self)

    def terminate(self) -> None:
        """SIGTERM to npm alone, as a process manager sends it."""
        self.running.terminate()

    def ends(self) -> int:
        """Waits for the end of npm and of all that it started, and returns npm's exit code."""
        code = self.running.wait(PATIENCE)
        wait_for(lambda: not self._group_lives(), lambda: f"npm left something running:\n{self.text()}")
        return code

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()

    def _group_lives(self) -> bool:
        try:
            os.killpg(self.running.pid, 0)
        except ProcessLookupError:
            return False
        return True


@dataclass
class Backend:
    """One test's Jobwire server, which wants a token, and the example's processes beside it."""

    database: AppDatabase
    folder: Path
    store: str
    stack: ExitStack
    tls: bool = False
    """Whether the Jobwire server speaks nothing but TLS; `authority` has then signed its certificate."""
    server: ServerProcess = field(init=False)
    address: str = field(init=False)

    def __post_init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.storage.mkdir()
        port, http_port, tokens = free_port(), free_port(), self.folder / "tokens"
        tokens.write_text(f"app {TOKEN}\n")
        env = _environment() | {
            # Longer than any test: a job that is cancelled while it runs ends only by its handler.
            "JOBWIRE_CANCEL_GRACE": "3600",
            "JOBWIRE_DATABASE_URL": self.database.admin,
            "JOBWIRE_LISTEN": f"127.0.0.1:{port}",
            "JOBWIRE_HTTP_LISTEN": f"127.0.0.1:{http_port}",
            "JOBWIRE_LOG_FORMAT": "json",
            "JOBWIRE_TOKENS_FILE": str(tokens),
        }
        if self.tls:
            authority = Authority("the authority of this test")
            key, certificate = authority.server("localhost")
            for name, pem in {"key": key, "certificate": certificate, "authority": authority.pem}.items():
                (self.folder / name).touch(mode=0o600)
                (self.folder / name).write_bytes(pem)
            env |= {
                "JOBWIRE_TLS_CERT": str(self.folder / "certificate"),
                "JOBWIRE_TLS_KEY": str(self.folder / "key"),
            }
        command = [sys.executable, "-m", "jobwire_server", "serve"]
        self.server = ServerProcess(command, env, self.folder / "jobwire.log", port=port, http_port=http_port)
        self.server.start()
        self.stack.callback(self.server.stop)
        self.database.grant()
        create = [sys.executable, "-m", "jobwire_server", "queues", "create", "screenings"]
        subprocess.run(create, env=self.environment, check=True, timeout=60)
        assert self.npm("migrate").ends() == 0

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to know to call the Jobwire server."""
        known = _environment() | {"JOBWIRE_SERVER": self.server.address, "JOBWIRE_TOKEN": TOKEN}
        if self.tls:
            known |= {"JOBWIRE_SERVER": f"localhost:{self.server.port}", "JOBWIRE_CA_FILE": str(self.authority)}
        return known

    @property
    def authority(self) -> Path:
        return self.folder / "authority"

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    def start(self, **environment: str) -> Program:
        """`npm start`, until it serves."""
        program = self.npm("start", **environment)
        program.says("serving on")
        return program

    def worker(self, **environment: str) -> Program:
        """`npm run worker`."""
        program = self.npm("worker", **environment)
        program.says("working on")
        return program

    @contextmanager
    def excel_worker(self) -> Iterator[None]:
        """The Excel worker, while the block runs."""
        where = ["--server", self.environment["JOBWIRE_SERVER"], "--storage", str(self.storage)]
        command = [sys.executable, "-m", "jobwire_workers.excel_parse", *where]
        running = subprocess.Popen(command, env=self.environment)
        try:
            yield
        finally:
            running.terminate()
            running.wait(60)

    def npm(self, script: str, **environment: str) -> Program:
        env = self.environment | {
            "DATABASE_URL": self.database.url,
            "LISTEN": self.address,
            "STORAGE": str(self.storage),
            "STORE": self.store,
            **environment,
        }
        output = self.folder / f"{script}-{secrets.token_hex(3)}.log"
        with output.open("wb") as file:
            running = subprocess.Popen(
                ["npm", "run", script], cwd=EXAMPLE, env=env, stdout=file, stderr=file, start_new_session=True
            )
        program = Program(running, output)
        self.stack.callback(program.kill)
        return program

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        """One request, on a connection of its own."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def upload(self, content: bytes) -> Answer:
        body, headers = form(content)
        return self.ask("POST", "/excel", body, headers)

    def screening(self, name: str, items: int) -> Answer:
        """Asks for a screening of so many items; every other one is to be included, by its number."""
        body = {
            "name": name,
            "criteria": {"include": ["even"], "exclude": ["odd"]},
            "items": [{"title": f"Study {n}", "abstract": "odd" if n % 2 else "even"} for n in range(items)],
        }
        return self.ask("POST", "/screenings", json.dumps(body).encode(), {"content-type": "application/json"})

    def job(self, job_id: str) -> Any:
        return self.ask("GET", f"/jobs/{job_id}").json

    def finished(self, job_id: str) -> Any:
        """Waits until a job is finished, and returns how."""
        states = ("completed", "failed", "cancelled")
        return wait_for(lambda: job if (job := self.job(job_id))["state"] in states else None, lambda: self.job(job_id))


END = b"\r\n--edge--\r\n"


def form(content: bytes, name: str = "a.xlsx") -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a form with one file."""
    head = f'--edge\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + content + END, {"content-type": "multipart/form-data; boundary=edge"}


def wait_for(look: Callable[[], T | None], what: Callable[[], object], program: Program | None = None) -> T:
    """Looks until there is something to see, and returns it."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert program is None or program.running.poll() is None, f"it ended:\n{what()}"
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)
    return seen


def _environment() -> dict[str, str]:
    left_out = ("JOBWIRE_", "DATABASE_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
