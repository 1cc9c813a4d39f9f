"""What is measured: one server and one PostgreSQL, as processes, and the looks at them from outside.

`DATABASE_URL` names a PostgreSQL to use; else one is embedded for the run. Each server has a schema of its own, which
is dropped at its end.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from jobwire_server.cli.children import Child, child
from jobwire_server.embedded import EmbeddedPostgres

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Arena:
    """A running server and its database."""

    folder: Path
    dsn: str
    schema: str
    server: Child
    address: str

    def memory(self, what: str = "VmRSS") -> float:
        """The server's resident memory in MiB; `VmHWM` is the most it has been since `forget_peak`."""
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        return int(re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)[1]) / 1024  # type: ignore[index]

    def forget_peak(self) -> None:
        """Begins anew to look for the most memory."""
        Path(f"/proc/{self.server.pid}/clear_refs").write_text("5")

    def query(self, statement: str) -> Sequence[Any]:
        """What a statement says, in which `{}` stands for the schema."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(statement.replace("{}", f'"{self.schema}"').encode()).fetchall()

    def transactions(self) -> int:
        """How many transactions the database has ended, which is at least one for each statement of an idle server."""
        [(count,)] = self.query(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        )
        return int(count)

    @asynccontextmanager
    async def player(self, *arguments: object, program: str = "bench.players") -> AsyncIterator[Child]:
        """A process of `program` that is ready, until the block ends."""
        name = "-".join(map(str, arguments))
        command = [sys.executable, "-m", program, self.address, *map(str, arguments)]
        async with child(name, command, self.folder / f"{name}-{secrets.token_hex(3)}.log") as player:
            await player.logged("ready")
            yield player

    @asynccontextmanager
    async def replica(self, **settings: object) -> AsyncIterator[Arena]:
        """Starts one more server on the same schema, and ends it."""
        async with _serving(self.folder, self.dsn, self.schema, settings) as place:
            yield place


@contextmanager
def postgres(settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """A PostgreSQL, by its connection string; `settings` are for one that is embedded."""
    if given := os.environ.get("JOBWIRE_DATABASE_URL") or os.environ.get("DATABASE_URL"):
        yield given
        return
    with (
        tempfile.TemporaryDirectory(prefix="jobwire-bench-", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgres(Path(folder) / "postgres", settings=settings) as embedded,
    ):
        yield embedded.dsn


@asynccontextmanager
async def arena(dsn: str, **settings: object) -> AsyncIterator[Arena]:
    """Starts a server, and ends it. `settings` are its own, such as `max_sessions=10`; a schema's name is made up."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobwire-bench-")))
        schema = str(settings.get("schema") or f"bench_{secrets.token_hex(4)}")
        stack.callback(_drop, dsn, schema)
        yield await stack.enter_async_context(_serving(folder, dsn, schema, settings))


@asynccontextmanager
async def _serving(folder: Path, dsn: str, schema: str, settings: Mapping[str, object]) -> AsyncIterator[Arena]:
    # Players are of this tree, whatever is installed.
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, [str(Path.cwd()), *_python_path()])))
    environment = {
        "JOBWIRE_DATABASE_URL": dsn,
        "JOBWIRE_SCHEMA": schema,
        "JOBWIRE_LISTEN": "127.0.0.1:0",
        "JOBWIRE_HTTP_LISTEN": "127.0.0.1:0",
        "JOBWIRE_LOG_FORMAT": "json",
        **{f"JOBWIRE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "jobwire_server", "serve"]
    async with child("server", command, folder / f"server-{secrets.token_hex(3)}.log", environment) as server:
        yield Arena(folder, dsn, schema, server, str((await server.logged("serving"))["grpc"]))


def _python_path() -> Sequence[str]:
    return os.environ.get("PYTHONPATH", "").split(os.pathsep)


def _drop(dsn: str, schema: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'.encode())


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown that people can read as it is."""
    texts = [[str(cell) for cell in row] for row in [heads, *rows]]
    widths = [max(len(row[column]) for row in texts) for column in range(len(heads))]
    texts.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in texts)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)
