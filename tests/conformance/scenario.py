"""What a scenario is, and the list of them.

A scenario is an async function of a Stage that plays one promise through with a driver, and knows no language. The
first paragraph of its docstring is the promise, in one sentence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conformance.stage import Stage

Play = Callable[["Stage"], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """One promise that a client may claim to keep."""

    name: str
    """As drivers claim it."""
    promise: str
    play: Play


SCENARIOS: dict[str, Scenario] = {}
"""All of them by name, in the order of the table; complete once `tests.conformance.scenarios` is imported."""


def scenario(play: Play) -> Play:
    """Put a function on the list, under its own name."""
    name = play.__name__.replace("_", "-")
    promise = " ".join((play.__doc__ or "").split("\n\n")[0].split())
    SCENARIOS[name] = Scenario(name, promise, play)
    return play
