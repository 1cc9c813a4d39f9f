"""A driver that breaks a promise fails the scenario of that promise, for that reason."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.playing import Ahead, play
from tests.conformance.servers import Servers

BROKEN = Path(__file__).with_name("broken_driver.py")
PATIENCE = 10.0
"""How long to wait for what a broken driver does not do, in seconds."""
PATIENCE_WITH = {"stays_on_a_dead_connection": 30.0, "opens_a_new_session": 60.0}
"""Where what another driver does takes longer."""

FAULTS = {
    ("repeats_under_new_ids", "republish"): "assert '.+' == '.+'",
    ("takes_more_than_it_may", "deliver"): r"assert \d == \d",
    ("completes_at_once", "ack"): "completed",
    ("says_an_end_once", "resume-after-cut"): "did not finish within|attempt",
    ("opens_a_new_session", "resume-after-cut"): "another session was opened",
    ("stays_on_a_dead_connection", "peer-vanishes"): "no other connection was made",
    ("forgets_what_it_holds", "storm"): "was started again",
    ("stops_handlers_at_a_break", "storm"): "was started again|no handler of job",
    ("loses_a_place_at_a_break", "storm"): "of 8 handlers run",
    ("leaves_with_words_unsaid", "storm"): "recorded is",
    ("answers_no_heartbeat", "slow-reader"): "assert|events 'started'|no handler of job",
    ("ignores_stop", "cancel"): "0 of 1 events 'stopping'",
    ("dies_of_sigterm", "sigterm"): "the driver ended before it answered|the driver .* ended with 0",
    ("repeats_whatever_fails", "older-server"): "no answer to publish",
    ("says_nothing_of_trouble", "wrong-port"): "0 of 1 events 'warning'",
}


@pytest.fixture(scope="module")
async def broken(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ahead]:
    folder = tmp_path_factory.mktemp("broken")
    plays = {
        f"{fault} {scenario}": play(
            scenario,
            [sys.executable, str(BROKEN), fault],
            servers,
            folder / fault,
            patience=PATIENCE_WITH.get(fault, PATIENCE),
        )
        for fault, scenario in FAULTS
    }
    async with Ahead(plays) as ahead:
        yield ahead


@pytest.mark.parametrize(("fault", "scenario"), FAULTS)
async def test_a_broken_driver_fails(broken: Ahead, fault: str, scenario: str) -> None:
    with pytest.raises(Exception) as failed:  # noqa: PT011 - whatever a scenario fails with
        await broken.ended(f"{fault} {scenario}")
    assert failed.match(FAULTS[fault, scenario])
