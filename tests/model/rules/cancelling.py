"""An operator stops jobs."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.operations.cancelling import Cancel
from tests.model.operations.operation import Operation
from tests.model.stage import NAMES

from .rules import Dice, Player, action, chosen, one_of


class Cancelling(Player):
    @action(1)
    def cancel(self, dice: Dice) -> Iterator[Operation]:
        queue = one_of(NAMES, dice.how)
        ids = chosen([job_id for name, job_id in self.model.jobs if name == queue], dice.spot, dice.many)
        over = [each.id for each in self.model.finished if each.queue == queue]
        ids += chosen(over, dice.spot) if dice.spot % 4 == 1 else []
        if ids:
            yield Cancel(dice.replica, queue, tuple(dict.fromkeys(ids)))

    @action(2)
    def cancel_active(self, dice: Dice) -> Iterator[Operation]:
        for job in self.leased(dice):
            yield Cancel(dice.replica, job.queue, (job.id,))
