"""What all rules share: the play under way, and how they choose whom an operation is about.

A rule draws small numbers, and takes them for places in lists that the model has: so a shorter play still makes sense,
and a rule that finds nobody does nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar, TypeVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from tests.model.model import Session
from tests.model.operations.operation import Operation
from tests.model.play import Play, Theatre

T = TypeVar("T")

SPOTS = st.integers(0, 999)
REPLICAS = st.integers(0, 1)
COUNTS = st.integers(1, 3)


class Rules(RuleBasedStateMachine):
    """A machine without rules: those of a topic are a mixin."""

    theatre: ClassVar[Theatre]

    def __init__(self) -> None:
        super().__init__()
        self.play = Play(self.theatre)

    def teardown(self) -> None:
        self.play.end()

    def act(self, operation: Operation) -> None:
        """Does it, unless the play has gone wrong."""
        self.play.act(operation)
        note(self.play.history[-1])

    def sessions(self, spot: int, count: int = 1) -> list[Session]:
        """Some sessions."""
        return chosen(list(self.play.model.sessions.values()), spot, count)


def chosen(those: Sequence[T], spot: int, count: int = 1) -> list[T]:
    """Some of those, which ones being said by a number: 0 are the first."""
    if not spot:
        return list(those[:count])
    return random.Random(spot).sample(those, min(count, len(those)))
