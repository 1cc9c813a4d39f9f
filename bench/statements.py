"""What a job costs at the database: `python -m bench.statements [--against CHECKOUT] [--rounds N] [--only NAME]`.

The store's own functions, without gRPC, over one connection to a durable PostgreSQL: publish, claim and complete in
several sizes. Printed for each are the microseconds a job takes by the clock, of PostgreSQL's CPU (the backend's) and
of the CPU here, and the bytes of WAL; the middle one of all rounds.

`--against` names another checkout, whose rounds alternate with those of this one on the same PostgreSQL, each in a
process and a schema of its own; then the ratio is printed too. `DATABASE_URL` names a PostgreSQL to use; else one is
embedded for the run. Its processes have to be on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from uuid_utils.compat import uuid7

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import AckItem, Complete, NewJob
from jobwire_server.domain.queues import Queue
from jobwire_server.embedded import EmbeddedPostgres
from jobwire_server.store import archive, claiming, migrate, publishing, queues, sessions, settling
from jobwire_server.store.database import Database

PUBLISHES = ((1, 200), (16, 50), (100, 20), (1_000, 6))
CLAIMS = ((1, 200), (10, 80), (200, 15), (1_000, 5))
COMPLETES = ((1, 200), (10, 80), (100, 20), (500, 12))
"""Jobs of a call, and calls of a round. A round claims what it published, and completes what it claimed."""

FIELDS = ("clock", "PostgreSQL", "here", "WAL")
Costs = dict[str, list[float]]


class Store:
    """One schema, one connection, and sessions that want any number of jobs."""

    def __init__(self, database: Database, backend: int) -> None:
        self._database = database
        self._backend = backend
        self._queue = Queue("statements")
        self._replica = uuid4()
        self._sessions = [uuid4() for _ in range(5)]

    async def prepare(self) -> None:
        """Brings the queue and the sessions into being."""
        await queues.create_queue(self._database, self._queue)
        terms = sessions.SessionTerms("bench", (self._queue.name,), 1_000, 60_000)
        for session in self._sessions:
            await sessions.open_session(self._database, self._replica, session, terms)

    async def round(self, only: str) -> Costs:
        """Publishes, claims and completes 9,000 jobs; what each took, of the operations whose name begins so."""
        costs: Costs = {}
        for size, calls in PUBLISHES:
            groups = [_jobs(size) for _ in range(calls)]
            async with self._measured(costs, f"publish {size}", size * calls):
                for group in groups:
                    await publishing.publish(self._database, self._queue, group)
        taken: list[Handle] = []
        for size, calls in CLAIMS:
            async with self._measured(costs, f"claim {size}", size * calls):
                for _ in range(calls):
                    taken += await self._claim(size)
        rest = iter(taken)
        for size, calls in COMPLETES:
            items = [[AckItem(next(rest), Complete(None)) for _ in range(size)] for _ in range(calls)]
            async with self._measured(costs, f"complete {size}", size * calls):
                for group in items:
                    await settling.settle(self._database, group)
        await settling.forget_claims(self._database, {self._queue.name: list({handle.token for handle in taken})})
        return {name: cost for name, cost in costs.items() if name.startswith(only)}

    async def _claim(self, size: int) -> list[Handle]:
        each = min(size, claiming.CLAIM_SIZE)
        wants = [claiming.Want(session, 1, uuid4(), each) for session in self._sessions[: -(-size // each)]]
        claimed = await claiming.claim(self._database, self._replica, self._queue.name, wants)
        if len(claimed) != size:
            raise RuntimeError(f"{len(claimed)} jobs were claimed, of {size} that are there")
        return [job.delivery.handle for job in claimed]

    @asynccontextmanager
    async def _measured(self, costs: Costs, name: str, jobs: int) -> AsyncIterator[None]:
        # Not now: a collection takes longer than many calls, and would hit one and the same size in each round.
        gc.collect()
        gc.disable()
        before = await self._look()
        yield
        after = await self._look()
        gc.enable()
        costs[name] = [(new - old) / jobs for old, new in zip(before, after, strict=True)]

    async def _look(self) -> list[float]:
        async with self._database.connection() as connection:
            cursor = await connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') AS wal")
            row = await cursor.fetchone()
        assert row is not None
        return [time.perf_counter() * 1e6, _cpu_us(self._backend), time.process_time() * 1e6, float(row.wal)]


def _jobs(count: int) -> list[NewJob]:
    """Jobs as a client publishes them: with ids that it made, of 200 bytes."""
    return [NewJob(UUID(int=uuid7().int), json.dumps({"n": n, "text": secrets.token_hex(90)})) for n in range(count)]


def _cpu_us(pid: int) -> float:
    """The CPU time of a process."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1_000


async def _play(dsn: str, schema: str, only: str) -> None:
    """One checkout's part: a round for each line of stdin, its costs as JSON on stdout."""
    async with Database(dsn, schema, pool_size=1) as database:
        await migrate.migrate(database)
        await archive.make_days_ahead(database)
        async with database.connection() as connection:
            backend = connection.info.backend_pid
        store = Store(database, backend)
        await store.prepare()
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await store.round(only)), flush=True)


@contextmanager
def _player(checkout: Path, dsn: str, only: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs this program with the server of a checkout, in a schema of its own."""
    schema = f"bench_{secrets.token_hex(4)}"
    path = os.pathsep.join(str(checkout / part) for part in ("server", "clients/python"))
    command = [sys.executable, __file__, "--play", schema, "--only", only]
    environment = os.environ | {"PYTHONPATH": path, "DATABASE_URL": dsn}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as player:
        try:
            yield player
        finally:
            assert player.stdin is not None
            player.stdin.close()
            player.wait(60)
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("SET client_min_messages = warning")
                connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'.encode())


def _round(player: subprocess.Popen[str]) -> Costs:
    assert player.stdin is not None
    assert player.stdout is not None
    player.stdin.write("\n")
    player.stdin.flush()
    costs: Any = json.loads(player.stdout.readline())
    return dict(costs)


def _print(rounds: Iterable[tuple[Costs, ...]]) -> None:
    rounds = list(rounds)
    print(f"{'µs a job':14}" + "".join(f"{field:>22}" for field in FIELDS))
    for name in rounds[0][0]:
        line = f"{name:14}"
        for place in range(len(FIELDS)):
            mine = [costs[0][name][place] for costs in rounds]
            line += f"{statistics.median(mine):>10.1f}"
            if len(rounds[0]) == 1:
                line += " " * 12
                continue
            theirs = [costs[1][name][place] for costs in rounds]
            ratio = statistics.median(ours / other for ours, other in zip(mine, theirs, strict=True))
            line += f"  ({ratio:4.2f} x)   "
        print(line)
    if len(rounds[0]) > 1:
        print("in brackets: the part of what the other checkout takes")


def main() -> None:
    """Runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.statements", description=__doc__)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="operations whose name begins so")
    parser.add_argument("--play", metavar="SCHEMA", help=argparse.SUPPRESS)
    given = parser.parse_args()
    dsn = os.environ.get("DATABASE_URL")
    if given.play:
        asyncio.run(_play(dsn or "", given.play, given.only))
        return
    checkouts = [Path(__file__).parents[1], *([given.against.resolve()] if given.against else [])]
    with ExitStack() as stack:
        if dsn is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="jobwire-", ignore_cleanup_errors=True))
            dsn = stack.enter_context(EmbeddedPostgres(Path(folder) / "pg")).dsn
        players = [stack.enter_context(_player(checkout, dsn, given.only)) for checkout in checkouts]
        for player in players:
            _round(player)  # warms up
        _print([tuple(_round(player) for player in players) for _ in range(given.rounds)])


if __name__ == "__main__":
    main()
