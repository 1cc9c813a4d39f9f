"""A PostgreSQL that a test may stop and start again while servers of ours are running.

It is led by a process of its own: as root PostgreSQL is started by a fork that changes the user, and a process in which
gRPC runs does not stand forks.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_LEADER = """
import sys
from pathlib import Path
from jobwire_server.embedded import EmbeddedPostgres

# Its folder is not below pytest's own, which PostgreSQL's user may not enter.
Path(sys.argv[1]).parent.chmod(0o711)
with EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off"}) as postgres:
    print(postgres.dsn, flush=True)
    for order in sys.stdin:
        getattr(postgres, order.strip())()
        print("done", flush=True)
"""


@dataclass(frozen=True, slots=True)
class OwnPostgres:
    """`dsn` is valid while it is stopped, too."""

    dsn: str
    _leader: asyncio.subprocess.Process

    async def start(self) -> None:
        """Returns when it takes connections. Starting what runs is fine."""
        await self._order("start")

    async def stop(self) -> None:
        """Cuts all connections off; returns when it is gone."""
        await self._order("stop")

    async def _order(self, word: str) -> None:
        assert self._leader.stdin is not None and self._leader.stdout is not None
        self._leader.stdin.write(f"{word}\n".encode())
        async with asyncio.timeout(60):
            assert await self._leader.stdout.readline() == b"done\n", "PostgreSQL's leader is gone"


@asynccontextmanager
async def own_postgres() -> AsyncIterator[OwnPostgres]:
    """Runs one; in the end it is stopped and its folder removed."""
    pipe = asyncio.subprocess.PIPE
    with tempfile.TemporaryDirectory(prefix="jobwire-test-", ignore_cleanup_errors=True) as folder:
        command = (sys.executable, "-c", _LEADER, f"{folder}/pg")
        leader = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        try:
            assert leader.stdout is not None
            dsn = (await leader.stdout.readline()).decode().strip()
            yield OwnPostgres(dsn, leader)
        finally:
            # An empty input, or on Python 3.11 it would stay open.
            await leader.communicate(b"")
