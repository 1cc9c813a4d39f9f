"""`python -m bench.speed.peers`: installs the peers; with `--check`, also has every driver do a little of everything.

The check asks that nothing is left undone, and that what a driver calls durable survives a crash of PostgreSQL in the
moment after.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import psycopg
from psycopg import sql

from bench.speed.peers.install import DEFAULT_FOLDER
from bench.speed.peers.registry import Contestant, Pace, Settings, contestants
from jobwire_server.embedded import EmbeddedPostgres

_ROOT = Path(__file__).parents[3]
_FEW = 4
_MANY = 1_000
_SECONDS_TO_END = 60.0


class CheckFailed(Exception):
    """A driver did not do what it is for."""


class Driver:
    """A driver's process and its two ends."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, **command: object) -> dict[str, Any]:
        """Give a command; return the answer that says that it is done. Raises CheckFailed if the driver ends."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        while (answer := self.hear())["event"] != "done":
            pass
        return answer

    def hear(self) -> dict[str, Any]:
        """Return the next answer."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise CheckFailed(f"{self.process.args!r} ended with {self.process.wait()}; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """Have it end in order. Raises CheckFailed if it does not."""
        assert self.process.stdin
        self.process.stdin.close()
        if status := self.process.wait(_SECONDS_TO_END):
            raise CheckFailed(f"{self.process.args!r} ended with {status}; what it said is above")


@contextmanager
def _driver(peer: Contestant, settings: Settings, dsn: str, scenario: str) -> Iterator[Driver]:
    """Start the peer's driver, which is killed at the end if it still runs."""
    environment = os.environ | peer.environment(settings, target=dsn, scenario=scenario)
    with subprocess.Popen(
        peer.command, env=environment, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            driver = Driver(process)
            _expect("the first word", driver.hear(), {"event": "ready"})
            yield driver
        finally:
            process.kill()


def _check(peer: Contestant, settings: Settings, postgres: EmbeddedPostgres) -> str:
    """Have the driver do a little of everything, and PostgreSQL crash after it; return what it took, for the reader."""
    dsn = _create_database(postgres, f"{peer.name}_{settings}")
    half = _FEW if peer.idle_pace != Pace() and settings == "defaults" else _MANY
    with _driver(peer, settings, dsn, "latency") as driver:
        driver.ask(do="setup")
        driver.end()
    with _driver(peer, settings, dsn, "publish_singly") as driver:
        singly = driver.ask(do="publish", jobs=half, batch=1, tasks=16)
        by_batch = driver.ask(do="publish", jobs=half, batch=100, tasks=2)
        _crash(driver, postgres)
    _expect("calls", (singly["calls"], by_batch["calls"]), (half, -(-half // 100)))
    _expect("jobs after publishing and a crash", _remaining(peer, dsn), 2 * half)
    with _driver(peer, settings, dsn, "drain") as driver:
        worked = driver.ask(do="work", jobs=2 * half)
        _crash(driver, postgres)
    _expect("jobs after work and a crash", _remaining(peer, dsn), 0)
    with _driver(peer, settings, dsn, "latency") as driver:
        latencies = driver.ask(do="latency", jobs=_FEW, every_ms=peer.idle_pace.every_ms)["latencies_us"]
        driver.end()
    _expect("latencies", len(latencies), _FEW)
    _expect("jobs after latency", _remaining(peer, dsn), 0)
    took = {"singly": singly, "by 100": by_batch, "work": worked}
    rates = (f"{name} {each['jobs'] / (each['ended'] - each['began']) * 1e9:,.0f}/s" for name, each in took.items())
    return f"{', '.join(rates)}, idle latency {sorted(latencies)[_FEW // 2] / 1000:,.1f} ms"


def _create_database(postgres: EmbeddedPostgres, name: str) -> str:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return f"{postgres.dsn.rpartition('/')[0]}/{quote(name)}"


def _crash(driver: Driver, postgres: EmbeddedPostgres) -> None:
    driver.process.kill()
    postgres.kill()
    postgres.start()


def _remaining(peer: Contestant, dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(peer.remaining_sql.encode()).fetchone()
    assert row
    return int(row[0])


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise CheckFailed(f"{what}: {found!r} instead of {expected!r}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.speed.peers", description="Install the peers.")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where to (%(default)s)")
    parser.add_argument("--check", action="store_true", help="have every driver do a little of everything")
    parser.add_argument("--only", metavar="NAME", help="check this peer alone")
    options = parser.parse_args()
    peers = contestants(options.folder)
    if not options.check:
        return 0
    failed = False
    with (
        tempfile.TemporaryDirectory(prefix="jobwire-peers-", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as postgres,
    ):
        for peer in peers:
            for settings in get_args(Settings):
                if peer.missing or options.only not in (None, peer.name):
                    continue
                try:
                    outcome = f"ok: {_check(peer, settings, postgres)}"
                except CheckFailed as error:
                    outcome, failed = f"FAILED: {error}", True
                print(f"{peer.name} at {settings}: {outcome}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
