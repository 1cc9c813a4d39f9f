"""Plays scenarios with drivers: several of a driver at a time, since most of their time is spent waiting.

A test file says `test_x = conforms("x")` for a client: one test for each scenario, which waits for its own. Those that
come after it are under way meanwhile, in the order of the tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import pytest

from tests.conformance.clients import Client
from tests.conformance.driver import PATIENCE, Driver
from tests.conformance.scenarios import SCENARIOS
from tests.conformance.servers import Servers
from tests.conformance.stage import Stage
from tests.conformance.table import NOT_CLAIMED, PASSES

Result = TypeVar("Result")

SIDE_BY_SIDE = 6
"""How many scenarios of a driver are under way at a time."""

LONGEST = 200.0
"""How long a scenario may take in all, in seconds: several waits that each nearly reach their limit."""

PROPERTY = "conformance"
"""Under this name a test's report says whether the scenario was passed, or not claimed."""


async def claims(client: Client, folder: Path) -> Sequence[str]:
    """The scenarios that a client's driver is to pass, as it says itself."""
    async with Driver(client.command, folder / "about.log") as driver:
        about = await driver.about()
    assert (about["client"], about["form"]) == (client.language, client.form), about
    assert set(about["claims"]) <= SCENARIOS.keys(), f"there is no scenario {set(about['claims']) - SCENARIOS.keys()}"
    claimed: Sequence[str] = about["claims"]
    return claimed


async def play(
    name: str, command: Sequence[str], servers: Servers, folder: Path, *, patience: float = PATIENCE
) -> None:
    """Play one scenario through; raises what it found wrong."""
    async with asyncio.timeout(LONGEST), Stage(servers, command, folder / name, patience=patience) as stage:
        await SCENARIOS[name].play(stage)


class Ahead(Generic[Result]):
    """Coroutines by name that are under way, some at a time and in their order, before anybody asks for their ends."""

    def __init__(self, wanted: Mapping[str, Coroutine[Any, Any, Result]]) -> None:
        self._places = asyncio.Semaphore(SIDE_BY_SIDE)
        self._tasks = {name: asyncio.create_task(self._in_turn(one), name=name) for name, one in wanted.items()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def ended(self, name: str) -> Result:
        """Wait for the end of one; raises what it raised."""
        return await self._tasks[name]

    async def _in_turn(self, one: Coroutine[Any, Any, Result]) -> Result:
        try:
            async with self._places:
                return await one
        finally:
            one.close()  # if it was not its turn yet


class Playing(Ahead[bool]):
    """The scenarios of one driver, some of them under way. The end of one says whether it was claimed, so played."""

    def __init__(self, client: Client, names: Sequence[str], servers: Servers, folder: Path) -> None:
        self._client = client
        self._servers = servers
        self._folder = folder
        self._claims = asyncio.create_task(claims(client, folder))
        super().__init__({name: self._play(name) for name in names})

    async def __aexit__(self, *raised: object) -> None:
        await super().__aexit__(*raised)
        await asyncio.wait([self._claims])

    async def _play(self, name: str) -> bool:
        if name not in await asyncio.shield(self._claims):
            return False
        await play(name, self._client.command, self._servers, self._folder)
        return True


def conforms(name: str) -> Callable[..., Awaitable[None]]:
    """The tests of one client: a scenario each."""

    @pytest.mark.timeout(2 * LONGEST)
    @pytest.mark.parametrize("playing", [name], indirect=True, scope="module")
    @pytest.mark.parametrize("scenario", SCENARIOS)
    async def test(scenario: str, playing: Playing, record_property: Callable[[str, object], None]) -> None:
        claimed = await playing.ended(scenario)
        record_property(PROPERTY, PASSES if claimed else NOT_CLAIMED)

    return test
