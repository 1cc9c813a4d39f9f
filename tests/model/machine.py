"""The machine that plays, and how many steps it is run for."""

from __future__ import annotations

import random
from typing import ClassVar

import hypothesis.internal.conjecture.engine
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from jobwire_server.domain.transitions import Event

from .play import Disagreement, Play, Theatre
from .rules.acking import Acking
from .rules.cancelling import Cancelling
from .rules.claiming import Claiming
from .rules.ending import Ending
from .rules.gates import Gates
from .rules.operating import Operating
from .rules.publishing import Publishing
from .rules.rules import Dice, Player
from .rules.sessions import Sessions
from .rules.time import Time

TOPICS: tuple[type[Player], ...] = (Publishing, Claiming, Acking, Sessions, Time, Cancelling, Ending, Gates, Operating)
"""What a play is made of. Another topic joins here."""
NOT_PLAYED: frozenset[Event] = frozenset()
"""Events of the table of transitions that no topic knows yet."""
PLAYS_AT_ONCE = 20
STEPS_OF_A_PLAY = 100
SHORTENED_FOR = 30
"""Seconds in which a play that went wrong is made shorter."""

Everybody = type("Everybody", TOPICS, {})
_DECK = random.Random(1).sample(Everybody.deck(), len(Everybody.deck()))
"""Shuffled once, so that who finds nothing to do makes way for somebody else each time."""
_ABSENT: list[type[Player] | None] = [None, Acking, Sessions, Time, Cancelling, Ending, Gates, Operating]
"""Whose actions a play goes without, if anybody's: what others have to say then lasts longer."""


class Machine(RuleBasedStateMachine):
    """Throws dice, and does what they say."""

    theatre: ClassVar[Theatre]

    def __init__(self) -> None:
        super().__init__()
        self.play = Play(self.theatre)
        self.player = Everybody(self.play)
        self.absent: frozenset[str] = frozenset()

    @initialize(absent=st.sampled_from(_ABSENT))
    def begin(self, absent: type[Player] | None) -> None:
        self.absent = frozenset(absent.deck()) if absent is not None else frozenset()
        for replica in (0, 1):
            self._act("open", Dice(replica, 1, 0, 0))

    @rule(
        card=st.sampled_from(range(len(_DECK))),
        dice=st.builds(Dice, st.integers(0, 1), st.integers(1, 3), st.integers(0, 99), st.integers(0, 999)),
    )
    def step(self, card: int, dice: Dice) -> None:
        """The first action from that card on that finds something to do."""
        for name in _DECK[card:] + _DECK[:card]:
            if name not in self.absent and self._act(name, dice):
                return

    def _act(self, name: str, dice: Dice) -> bool:
        done = False
        for operation in getattr(self.player, name)(dice):
            self.play.act(operation)
            done = True
        return done

    def teardown(self) -> None:
        self.play.end()


def run(theatre: Theatre, steps: int) -> None:
    """Plays until so many steps were done and compared; raises when the store and the model disagree."""
    machine = type("Machine", (Machine,), {"theatre": theatre})
    how = settings(
        max_examples=PLAYS_AT_ONCE,
        stateful_step_count=STEPS_OF_A_PLAY,
        deadline=None,
        database=None,
        verbosity=Verbosity.quiet,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS = SHORTENED_FOR
    while theatre.steps < steps:
        try:
            run_state_machine_as_test(machine, settings=how)
        except BaseException as error:
            if theatre.disagreement is None:
                raise
            # Shorter than what was found first; of two operations at once it may be another that wins each time.
            raise Disagreement(theatre.disagreement) from error
