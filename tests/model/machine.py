"""The machine with all rules, and how many steps it is run for."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from .play import Theatre
from .rules.acking import Acking
from .rules.cancelling import Cancelling, Racing
from .rules.claiming import Claiming
from .rules.publishing import Publishing
from .rules.sessions import Sessions
from .rules.time import Time

PLAYS_AT_ONCE = 20
STEPS_OF_A_PLAY = 100


class Jobs(Publishing, Claiming, Acking, Sessions, Time, Cancelling, Racing):
    """Whatever may befall jobs."""


def run(theatre: Theatre, steps: int) -> None:
    """Plays until so many steps were done and compared; raises when the store and the model disagree."""
    machine = type("Machine", (Jobs,), {"theatre": theatre})
    how = settings(
        max_examples=PLAYS_AT_ONCE,
        stateful_step_count=STEPS_OF_A_PLAY,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    while theatre.steps < steps:
        run_state_machine_as_test(machine, settings=how)
