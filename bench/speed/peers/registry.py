"""Names every peer, how its driver is started, and the SQL that counts what it has left to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bench.speed.peers.install import DEFAULT_FOLDER, install, node_in

Settings = Literal["defaults", "best"]


@dataclass(frozen=True)
class Pace:
    """How many jobs show a product's idle latency, and how far apart, in ms, so that each meets an idle worker."""

    jobs: int = 200
    every_ms: float = 50


@dataclass(frozen=True)
class Contestant:
    """A peer, and how to measure it.

    `command` starts its driver, from the root of this tree. `remaining_sql` counts the jobs without a durable outcome.
    `in_ranking` is false for what is no job queue. `idle_pace` is for latency at its defaults. `missing`, if not empty,
    says why it is not installed; else `version` is what is.
    """

    name: str
    command: tuple[str, ...]
    remaining_sql: str
    in_ranking: bool = True
    idle_pace: Pace = Pace()
    version: str = ""
    missing: str = ""

    def environment(self, settings: Settings, *, target: str, scenario: str = "") -> dict[str, str]:
        """Return what to add to the driver's environment, for the database `target`.

        `scenario` lets `best` be the best for just that: publish_singly, publish_bulk, drain, end_to_end_singly,
        end_to_end_by_100 or latency. Make the schema under the same one: pg-boss keeps a setting in it.
        """
        return {"BENCH_TARGET": target, "BENCH_SETTINGS": settings, "BENCH_SCENARIO": scenario}


def contestants(folder: Path = DEFAULT_FOLDER, *, say: Callable[[str], None] = print) -> list[Contestant]:
    """Install the peers into `folder`, telling `say` what goes on; return all of them, the missing ones too."""
    outcomes = install(folder, say=say)
    return [
        replace(peer, version=outcomes[peer.name].version, missing=outcomes[peer.name].missing)
        for peer in _peers(folder.absolute())
    ]


def _peers(folder: Path) -> list[Contestant]:
    node, python = str(node_in(folder)), str(folder / "python/bin/python")
    return [
        Contestant(
            "pg-boss",
            command=(node, str(folder / "node/pgboss.mjs")),
            remaining_sql="SELECT count(*) FROM pgboss.job WHERE state < 'completed'",
            # It takes one job per poll, each 2 seconds: any faster, and it is a backlog that is measured.
            idle_pace=Pace(jobs=15, every_ms=2_600),
        ),
        Contestant(
            "Graphile Worker",
            command=(node, str(folder / "node/graphile.mjs")),
            remaining_sql="SELECT count(*) FROM graphile_worker._private_jobs",
        ),
        Contestant(
            "pgqueuer",
            command=(python, "-m", "bench.speed.peers.pgqueuer_driver"),
            remaining_sql="SELECT count(*) FROM pgqueuer",
        ),
        Contestant(
            "River",
            command=(str(folder / "river"),),
            remaining_sql="SELECT count(*) FROM river_job WHERE finalized_at IS NULL",
        ),
        Contestant(
            "pgmq",
            command=(python, "-m", "bench.speed.peers.pgmq_driver"),
            remaining_sql="SELECT count(*) FROM pgmq.q_bench",
            in_ranking=False,
        ),
    ]
