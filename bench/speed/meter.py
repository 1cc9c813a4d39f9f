"""What a run costs beside time: CPU and memory of processes, WAL and statements of PostgreSQL.

Always holds: it looks from outside and changes nothing that it measures; figures are differences over a `with` block;
a process stands for all that it has begun, so that the postmaster stands for the whole of PostgreSQL, its backends that
ended meanwhile included.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import psutil  # type: ignore[import-untyped]
import psycopg

_SAMPLE_SECONDS = 0.2
_MIB = 1024 * 1024


class Meter:
    """Measures named groups of processes over a `with` block, which may be entered again.

    `processes` says which belong to each name, by their ids; their descendants count with them. After the block:
    `seconds` is its length, `cpu` the CPU seconds of each name, `elsewhere` those of everything else on the machine
    (the noise, this process included unless named), and `memory` the most MiB that each name held at once, looked at
    every 0.2 s: shared pages are divided among those that share them where the system tells (Linux), else counted for
    each. A process that has ended counts with what it had used at the last look.
    """

    def __init__(self, processes: Mapping[str, Sequence[int]]) -> None:
        self._roots = {name: list(dict.fromkeys(pids)) for name, pids in processes.items()}
        self._ended = threading.Event()
        self._used: dict[str, dict[int, float]] = {}
        self.seconds = 0.0
        self.cpu: dict[str, float] = {}
        self.memory: dict[str, float] = {}
        self.elsewhere = 0.0

    def __enter__(self) -> Self:
        self._used = {name: {} for name in self._roots}
        self.memory = dict.fromkeys(self._roots, 0.0)
        self._look()
        self._before = {name: sum(used.values()) for name, used in self._used.items()}
        self._busy_before, self._began = _busy(), time.monotonic()
        self._ended.clear()
        self._sampler = threading.Thread(target=self._sample, name="meter", daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._sampler.join()
        self._look()
        self.seconds = time.monotonic() - self._began
        self.cpu = {name: sum(used.values()) - self._before[name] for name, used in self._used.items()}
        self.elsewhere = max(0.0, _busy() - self._busy_before - sum(self.cpu.values()))

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        for name, roots in self._roots.items():
            held = 0.0
            for root in roots:
                family = list(_family(root))
                if family:
                    self._used[name][root] = sum(map(_cpu, family))
                held += sum(map(_memory, family))
            self.memory[name] = max(self.memory[name], held)


def _family(pid: int) -> Iterator[Any]:
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        yield root
        yield from root.children(recursive=True)


def _cpu(process: Any) -> float:
    """CPU seconds of a process and of its children that ended: those that live are asked themselves."""
    with suppress(psutil.Error):
        return float(sum(process.cpu_times()[:4]))
    return 0.0


def _memory(process: Any) -> float:
    with suppress(psutil.Error):
        info = process.memory_full_info() if sys.platform == "linux" else process.memory_info()
        return float(getattr(info, "pss", info.rss)) / _MIB
    return 0.0


def _busy() -> float:
    """CPU seconds that the machine has spent in processes since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice)


class Ledger:
    """What PostgreSQL writes and runs over a `with` block, which may be entered again.

    `dsn` names the database. After the block: `wal_bytes` of the whole server, and `statements` of this database:
    counted by pg_stat_statements if that is loaded (`counts_statements`), else transactions stand for them.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.counts_statements = False
        self.wal_bytes = 0
        self.statements = 0

    def __enter__(self) -> Self:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            [loaded] = _row(connection, "SELECT current_setting('shared_preload_libraries') ~ 'pg_stat_statements'")
            self.counts_statements = bool(loaded)
            if loaded:
                connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        self._before = self._look()
        return self

    def __exit__(self, *_: object) -> None:
        wal, statements = self._look()
        self.wal_bytes = wal - self._before[0]
        self.statements = statements - self._before[1]

    def _look(self) -> tuple[int, int]:
        counted = _STATEMENTS if self.counts_statements else _TRANSACTIONS
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            wal, statements = _row(connection, f"SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, ({counted})")
            return int(wal), int(statements)


_STATEMENTS = """
SELECT coalesce(sum(s.calls), 0) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname = current_database() AND s.query !~ 'pg_stat_statements'
"""
_TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"


def _row(connection: psycopg.Connection[Any], statement: str) -> Sequence[Any]:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row  # type: ignore[no-any-return]


def postmaster(dsn: str) -> int:
    """The process id of the PostgreSQL behind `dsn`, which must run on this machine."""
    with psycopg.connect(dsn) as connection:
        return int(psutil.Process(connection.info.backend_pid).ppid())
