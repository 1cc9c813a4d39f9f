"""The speed benchmark runs through with next to no jobs; what it measures then says nothing, nor is it looked at."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bench.speed.contest import NODE, Contestant
from bench.speed.report import write_docs
from bench.speed.rounds import measure
from bench.speed.scenarios import SCENARIOS
from tests.conformance.clients import CLIENTS
from tests.conftest import Postgres

ROOT = Path(__file__).parents[2]
FROM_NODE = set() if CLIENTS["node"].missing else {NODE}
"""Who takes part only where the Node client is built."""


async def run_bench(postgres: Postgres, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.speed", *arguments),
        cwd=ROOT,
        env=os.environ | {"JOBWIRE_DATABASE_URL": postgres.dsn},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode, out.decode(), errors.decode()


def measured(data: Mapping[str, Any]) -> dict[str, set[str]]:
    return {name: set(scenario["contestants"]) for name, scenario in data["scenarios"].items()}


async def test_a_tiny_contest_runs_through(postgres: Postgres, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    scenarios = "drain,latency,ungrouped"
    code, out, errors = await run_bench(
        postgres, "--rounds", "1", "--scale", "0.001", "--scenario", scenarios, "--json", str(file)
    )
    assert code == 0, errors
    data = json.loads(file.read_text())
    assert measured(data) == {
        "drain": {"Jobwire", "ceiling"} | FROM_NODE,
        "latency": {"Jobwire", "echo server"} | FROM_NODE,
        "ungrouped": {"Jobwire", "ceiling", "echo server"} | FROM_NODE,
    }
    assert set(data["absent"]) == {NODE} - FROM_NODE
    for scenario in data["scenarios"].values():
        for contestant in scenario["contestants"].values():
            assert all(figure["median"] > 0 for figure in contestant["figures"].values())
            assert contestant["costs"]["memory PostgreSQL"] > 0
    [bare] = [target for target in data["scenarios"]["ungrouped"]["targets"] if target["against"] == ["echo"]]
    jobwire, echo = (data["scenarios"]["ungrouped"]["contestants"][name] for name in ("Jobwire", "echo server"))
    assert bare["ratio"]["median"] == pytest.approx(
        jobwire["figures"]["rate"]["median"] / echo["figures"]["rate"]["median"]
    )
    assert bare["verdict"] in {"holds", "does not hold"}
    # Those that compare with peers, who were not asked to come.
    assert {target["verdict"] for target in data["scenarios"]["latency"]["targets"]} == {"not measured"}
    assert "| drain jobs that do nothing" in out


async def test_from_node_it_is_measured_too_and_by_the_client_of_another_checkout(
    postgres: Postgres, tmp_path: Path
) -> None:
    if CLIENTS["node"].missing:
        pytest.skip(CLIENTS["node"].missing)
    file = tmp_path / "run.json"
    few = ("--rounds", "1", "--scale", "0.001", "--scenario", "publish_bulk,drain,latency")
    those = ("--contestant", f"{NODE},other Node client", "--against", str(ROOT))
    code, out, errors = await run_bench(postgres, *few, *those, "--json", str(file))
    assert code == 0, errors
    data = json.loads(file.read_text())
    assert measured(data) == {name: {NODE, "other Node client"} for name in ("publish_bulk", "drain", "latency")}
    drain = data["scenarios"]["drain"]["contestants"]
    mine, other = (drain[name]["figures"]["rate"]["median"] for name in (NODE, "other Node client"))
    assert drain["other Node client"]["node_over_it"]["rate"]["median"] == pytest.approx(mine / other)
    assert f"{NODE}'s over it" in out


async def test_a_contestant_that_fails_is_reported_and_leaves_nothing(postgres: Postgres) -> None:
    [drain] = [scenario for scenario in SCENARIOS if scenario.name == "drain"]
    program = """print('{"event": "ready"}', flush=True); input(); raise SystemExit("it hurts")"""
    found = await measure(drain, Contestant("Broken", "queue", [sys.executable, "-c", program]), 1, 20, postgres.dsn)
    assert not found.figures
    assert found.error.startswith("the driver of Broken was to say 'done' and said b''")
    assert "it hurts" in found.error
    with psycopg.connect(postgres.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM pg_database WHERE datname LIKE 'bench_%'").fetchone() == (0,)


async def test_an_unknown_scenario_is_named(postgres: Postgres) -> None:
    code, _, errors = await run_bench(postgres, "--scenario", "drain,drian")
    assert code == 1
    assert "there is no scenario drian; there are publish_singly, " in errors


def test_the_page_has_a_place_for_results(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text((ROOT / "docs/benchmarks.md").read_text())
    write_docs(page, "contest", "ALL THE FIGURES", "<svg/>")
    write_docs(page, "beyond", "WHAT IS BEYOND", "")
    text = page.read_text()
    assert "ALL THE FIGURES" in text and "WHAT IS BEYOND" in text and "Not measured yet" not in text
    assert text.count("## Limits") == 1
    assert "(benchmarks.svg)" in text
    assert page.with_suffix(".svg").read_text() == "<svg/>"
