"""Time passes, for one claim or job at a time."""

from __future__ import annotations

from collections.abc import Iterator

from jobwire_server.domain.transitions import Standing
from tests.model.operations.operation import Operation
from tests.model.operations.time import Day, Due, Limits, Pass, Restore

from .rules import Dice, Player, action, chosen, one_of

LONG_MS = 4_000_000
"""Longer than any limit of a play."""
_SPELLS_MS = (450_000, LONG_MS)


class Time(Player):
    @action(4)
    def due(self, dice: Dice) -> Iterator[Operation]:
        jobs = self.model.jobs.values()
        waiting = [job.key for job in jobs if job.facts.standing is Standing.SCHEDULED]
        if waiting:
            yield Due(dice.replica, tuple(chosen(waiting, dice.spot, dice.many * 2)))

    @action(4)
    def wait(self, dice: Dice) -> Iterator[Operation]:
        for handle in self.held(dice):
            yield Pass(handle.token, one_of(_SPELLS_MS, dice.how))
            yield Limits(dice.replica)

    @action(1)
    def forget_an_id(self, dice: Dice) -> Iterator[Operation]:
        # Where the claim that led to the outcome lives that long as well is another story: see tests/store.
        named = {(claim.queue, job_id) for claim in self.model.claims.values() for job_id in claim.ids}
        over = [each for each in self.model.finished if each.recent and (each.queue, each.id) not in named]
        for each in chosen(over, dice.spot):
            yield Day((each.queue, each.id))

    @action(1)
    def restore(self, dice: Dice) -> Iterator[Operation]:
        if dice.how % 4 == 1:
            yield Restore(dice.replica)
