"""The table of docs/conformance.md says what the drivers claim, and the tests see them pass what they claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.clients import CLIENTS
from tests.conformance.playing import claims
from tests.conformance.scenarios import SCENARIOS
from tests.conformance.table import FAILS, PAGE, as_markdown, as_text, from_markdown, of_claims, written_into

EXAMPLE = {"python": of_claims(list(SCENARIOS)), "go-thin": of_claims(["publish", "ack"])}


@pytest.mark.parametrize("name", CLIENTS)
async def test_the_committed_table_says_what_a_driver_claims(name: str, tmp_path: Path) -> None:
    client = CLIENTS[name]
    if client.missing:
        pytest.skip(client.missing)
    committed = from_markdown(PAGE.read_text()).get(name)
    assert committed == of_claims(await claims(client, tmp_path)), "make conformance ARGS=--write"


def test_the_committed_table_has_the_scenarios_as_they_are() -> None:
    page = PAGE.read_text()
    assert as_markdown(from_markdown(page)) in page, "make conformance ARGS=--write"


def test_what_is_written_is_read_again() -> None:
    page = written_into(PAGE.read_text(), EXAMPLE)
    assert from_markdown(page).items() >= EXAMPLE.items()
    failed = {**EXAMPLE["go-thin"], "ack": FAILS}
    again = from_markdown(written_into(page, {"go-thin": failed}))
    assert again["go-thin"] == failed and again["python"] == EXAMPLE["python"]


def test_a_terminal_shows_a_line_for_each_scenario() -> None:
    lines = as_text(EXAMPLE).splitlines()
    assert lines[0].split() == ["scenario", "python", "go-thin"]
    assert [line.split()[0] for line in lines[1:]] == list(SCENARIOS)
    assert next(line for line in lines if line.startswith("publish")).split()[1:] == ["passes", "passes"]
    assert next(line for line in lines if line.startswith("drain ")).split()[1:] == ["passes", "not", "claimed"]


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_scenario_promises_one_sentence(scenario: object) -> None:
    promise = scenario.promise  # type: ignore[attr-defined]
    assert promise.endswith(".") and ". " not in promise and "|" not in promise
