"""The table of a run: every figure with its goal, and whether it was reached."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.history import Fault
from tests.chaos.invariants.report import Report
from tests.chaos.table import as_dict, as_markdown, as_text

FAULTS = [
    Fault(1.0, "runner", 0, "kill", "worker-1", 2.0),
    Fault(1.0, "runner", 0, "kill", "worker-2", 2.0),
    Fault(3.0, "runner", 0, "cut", "server-1 to postgres", 4.0),
]


@dataclass
class Measured:
    workers: Sequence[float] = ()
    replicas: Sequence[float] = ()
    database: Sequence[float] = ()


def good() -> Report:
    return Report(acknowledged=12_000, deliveries=12_010, redeliveries=Counter({"failed": 8, "lost: kill worker": 2}))


def test_a_good_run_as_text() -> None:
    text = as_text(good(), FAULTS, Measured([3.0, 4.5, 17.25], [70.0]))
    assert "3: kill worker 2, cut server to postgres 1" in text
    assert "12,000" in text
    assert "10: failed 8, lost: kill worker 2" in text
    assert "at most 17.2 s, mostly 4.5 s, of 3" in text
    assert "at most 75 s" in text
    assert "not measured" in text
    assert "MISSED" not in text


def test_what_was_missed_is_said_with_its_place() -> None:
    report = good()
    report.lost = 1
    report.add("lost", "published, acknowledged, and in the end it is gone", job="j", t=5.0)
    text = as_text(report, FAULTS, Measured([25.0]))
    missed = [line.split("  ")[0] for line in text.splitlines() if line.endswith("MISSED")]
    assert missed == ["acknowledged jobs lost", "recovery from a worker's death", "violations of any invariant"]
    assert text.endswith("lost at 5.000: published, acknowledged, and in the end it is gone [job=j]")


def test_markdown_has_a_row_for_each_figure() -> None:
    rows = as_markdown(good(), FAULTS, Measured()).splitlines()
    assert rows[:2] == ["|  | found | goal |  |", "| --- | --- | --- | --- |"]
    assert "| acknowledged jobs lost | 0 | 0 | reached |" in rows
    assert "| recovery from a replica's death | not measured | at most 75 s |  |" in rows
    assert all(row.count("|") == 5 for row in rows)


def test_a_dict_goes_into_json() -> None:
    report = good()
    report.stale_accepted = 2
    said = json.loads(json.dumps(as_dict(report, FAULTS, Measured(database=[31.0]))))
    assert said["faults"] == {"kill worker": 2, "cut server to postgres": 1}
    assert said["redeliveries"] == {"failed": 8, "lost: kill worker": 2}
    assert said["database_restart"] == [31.0]
    assert {name for name, reached in said["goals"].items() if reached is False} == {
        "stale_accepted",
        "database_restart",
    }
    assert said["goals"]["worker_death"] is None
