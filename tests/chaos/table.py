"""The table in which a run ends: what was done, what was found, and what it should have been.

One list of lines, written as Markdown for the docs, as text for a terminal, and as a dict for programs.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from tests.chaos.history import Fault
from tests.chaos.invariants.disturbances import name_of
from tests.chaos.invariants.report import Report

WORKER_DEATH, REPLICA_DEATH, DATABASE_RESTART = 20.0, 75.0, 30.0
"""Goals for the time to recover, in seconds, with the default graces."""
_HEADS = ("", "found", "goal", "")


class Recovery(Protocol):
    """Seconds to recover, a number for each death of a worker, death of a replica, restart of the database."""

    @property
    def workers(self) -> Sequence[float]: ...

    @property
    def replicas(self) -> Sequence[float]: ...

    @property
    def database(self) -> Sequence[float]: ...


@dataclass(frozen=True)
class Line:
    """A figure. `reached` is None where there is no goal, or nothing was measured."""

    key: str
    name: str
    value: Any
    found: str
    goal: str = ""
    reached: bool | None = None


def lines(report: Report, faults: Sequence[Fault], recovery: Recovery) -> list[Line]:
    """The table's lines."""
    done = Counter(name_of(fault) for fault in faults)
    others = dict(sorted(report.counts.items()))
    return [
        Line("faults", "faults", dict(done), _counted(done)),
        Line("jobs", "jobs published and acknowledged", report.acknowledged, f"{report.acknowledged:,}"),
        Line("deliveries", "deliveries", report.deliveries, f"{report.deliveries:,}"),
        _none("lost", "acknowledged jobs lost", report.lost),
        _none("double_outcomes", "double outcomes", report.double_outcomes),
        _none("stale_accepted", "stale Acks accepted", report.stale_accepted),
        Line("redeliveries", "delivered again", dict(report.redeliveries), _counted(report.redeliveries)),
        _none("unexplained", "of these, or of lost leases, unexplained", report.unexplained),
        _none("retries_wrong", "retries used up wrongly", report.retries_wrong),
        _none("losses_wrong", "losses counted wrongly", report.losses_wrong),
        _within("worker_death", "recovery from a worker's death", recovery.workers, WORKER_DEATH),
        _within("replica_death", "recovery from a replica's death", recovery.replicas, REPLICA_DEATH),
        _within("database_restart", "95 % of the rate after a database restart", recovery.database, DATABASE_RESTART),
        Line("violations", "violations of any invariant", others, _counted(others), "none", report.ok),
    ]


def as_dict(report: Report, faults: Sequence[Fault], recovery: Recovery) -> dict[str, Any]:
    """The figures by name, the goals, and whether all of them were reached."""
    found = lines(report, faults, recovery)
    return {line.key: line.value for line in found} | {
        "goals": {line.key: line.reached for line in found if line.goal},
        "violations_shown": [str(violation) for violation in report.violations],
    }


def as_markdown(report: Report, faults: Sequence[Fault], recovery: Recovery) -> str:
    """A table for a document."""
    rows = [_HEADS, ("---",) * len(_HEADS), *map(_cells, lines(report, faults, recovery))]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def as_text(report: Report, faults: Sequence[Fault], recovery: Recovery, *, width: int = 120) -> str:
    """A table for a terminal, and the violations below it."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, head in enumerate(_HEADS):
        table.add_column(head, overflow="fold", no_wrap=number in (0, 2, 3))
    for line in lines(report, faults, recovery):
        table.add_row(*_cells(line))
    out = io.StringIO()
    console = Console(file=out, width=width)
    console.print(table, markup=False)
    text = "\n".join(row.rstrip() for row in out.getvalue().splitlines())
    return text if report.ok else f"{text}\n\n{report}"


def _cells(line: Line) -> tuple[str, ...]:
    verdict = {None: "", True: "reached", False: "MISSED"}[line.reached]
    return (line.name, line.found, line.goal, verdict)


def _counted(counts: Counter[str] | dict[str, int]) -> str:
    if not counts:
        return "none"
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{name} {count:,}" for name, count in ordered)
    return f"{sum(counts.values()):,}: {named}"


def _none(key: str, name: str, count: int) -> Line:
    return Line(key, name, count, f"{count:,}", "0", count == 0)


def _within(key: str, name: str, seconds: Iterable[float], limit: float) -> Line:
    measured = sorted(seconds)
    goal = f"at most {limit:.0f} s"
    if not measured:
        return Line(key, name, [], "not measured", goal)
    worst = measured[-1]
    found = f"{worst:.1f} s"
    if len(measured) > 1:
        found = f"at most {worst:.1f} s, mostly {median(measured):.1f} s, of {len(measured)}"
    return Line(key, name, [round(one, 3) for one in measured], found, goal, worst <= limit)
