"""What a run has measured, and what follows from it: medians, spreads, ratios within each round, targets."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import psutil  # type: ignore[import-untyped]
import psycopg

from bench.speed.contest import JOBWIRE, NODE, Contestant, Cost
from bench.speed.scenarios import Scenario, Target

PER = 100_000
"""Costs are told for so many jobs."""


@dataclass(frozen=True)
class Measurement:
    """One contestant in one scenario and round: figures by metric, or why there are none."""

    scenario: str
    contestant: str
    round: int
    jobs: int
    figures: Mapping[str, float]
    cost: Cost | None = None
    error: str = ""


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, with the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None if there are no values."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Verdict:
    """A target, and the ratio that was measured; None if what it compares with was not there."""

    target: Target
    ratio: Spread | None

    @property
    def word(self) -> str:
        """How it went."""
        if self.ratio is None:
            return "not measured"
        return "holds" if self.target.holds(self.ratio.median) else "does not hold"


@dataclass(frozen=True)
class Results:
    """A run."""

    machine: Mapping[str, Any]
    contestants: Sequence[Contestant]
    scenarios: Sequence[Scenario]
    measurements: Sequence[Measurement]

    def present(self, scenario: Scenario) -> list[Contestant]:
        """Those who were measured, in their order."""
        return [one for one in self.contestants if self._by_round(scenario, one.name, scenario.metrics[0])]

    def spread(self, scenario: Scenario, contestant: str, metric: str) -> Spread | None:
        """A figure over the rounds."""
        return Spread.of(list(self._by_round(scenario, contestant, metric).values()))

    def ratio(self, scenario: Scenario, against: Sequence[str], metric: str, of: str = JOBWIRE) -> Spread | None:
        """A contestant's figure over the best among `against`, names or kinds, within each round."""
        others = [
            self._by_round(scenario, one.name, metric)
            for one in self.contestants
            if one.name in against or one.kind in against
        ]
        best = max if metric == "rate" else min
        ratios = []
        for number, figure in self._by_round(scenario, of, metric).items():
            if met := [other[number] for other in others if number in other]:
                ratios.append(figure / best(met))
        return Spread.of(ratios)

    def verdicts(self, scenario: Scenario) -> list[Verdict]:
        """How each of the scenario's targets went."""
        return [Verdict(each, self.ratio(scenario, each.against, each.metric)) for each in scenario.targets]

    def costs(self, scenario: Scenario, contestant: str) -> Mapping[str, float]:
        """Medians over the rounds: CPU seconds per 100,000 jobs and MiB by process, WAL bytes per job."""
        found: dict[str, list[float]] = {}
        for each in self._of(scenario, contestant):
            if each.cost is None:
                continue
            for name, seconds in each.cost.cpu.items():
                found.setdefault(f"cpu {name}", []).append(seconds * PER / each.jobs)
            for name, held in each.cost.memory.items():
                found.setdefault(f"memory {name}", []).append(held)
            found.setdefault("wal", []).append(each.cost.wal_bytes / each.jobs)
        return {name: statistics.median(values) for name, values in found.items()}

    def noise(self) -> float:
        """How many cores were busy with something else while something was measured, in the median."""
        return statistics.median(
            [m.cost.elsewhere / m.cost.seconds for m in self.measurements if m.cost and m.cost.seconds] or [0.0]
        )

    def errors(self) -> list[str]:
        """What went wrong, and who is not there."""
        absent = [f"{one.name} is not there: {one.absent}" for one in self.contestants if one.absent]
        failed = [f"{m.contestant}, {m.scenario}, round {m.round}: {m.error}" for m in self.measurements if m.error]
        return absent + failed

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {
            "machine": self.machine,
            "versions": {one.name: one.version for one in self.contestants if one.version},
            "absent": {one.name: one.absent for one in self.contestants if one.absent},
            "scenarios": {scenario.name: self._summary(scenario) for scenario in self.scenarios},
            "measurements": [asdict(each) for each in self.measurements],
        }

    def _summary(self, scenario: Scenario) -> dict[str, Any]:
        return {
            "title": scenario.title,
            "contestants": {
                one.name: {
                    "kind": one.kind,
                    "figures": {m: _plain(self.spread(scenario, one.name, m)) for m in scenario.metrics},
                    "jobwire_over_it": {m: _plain(self.ratio(scenario, [one.name], m)) for m in scenario.metrics},
                    "node_over_it": {m: _plain(self.ratio(scenario, [one.name], m, NODE)) for m in scenario.metrics},
                    "costs": self.costs(scenario, one.name),
                }
                for one in self.present(scenario)
            },
            "targets": [
                {**asdict(each.target), "ratio": _plain(each.ratio), "verdict": each.word}
                for each in self.verdicts(scenario)
            ],
        }

    def _by_round(self, scenario: Scenario, contestant: str, metric: str) -> dict[int, float]:
        return {m.round: m.figures[metric] for m in self._of(scenario, contestant) if metric in m.figures}

    def _of(self, scenario: Scenario, contestant: str) -> list[Measurement]:
        return [m for m in self.measurements if (m.scenario, m.contestant) == (scenario.name, contestant)]


def machine(dsn: str) -> dict[str, Any]:
    """Where the run was made."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')"
        ).fetchone()
    assert row is not None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "postgresql": row[0],
        "fsync": row[1],
        "synchronous_commit": row[2],
    }


def _plain(spread: Spread | None) -> dict[str, float] | None:
    return asdict(spread) if spread else None
