"""An operator's hand, on jobs wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator

from jobwire_server.domain.operations import Change
from tests.model.operations.operating import Operate
from tests.model.operations.operation import Operation
from tests.model.stage import NAMES

from .rules import Dice, Player, action, chosen, one_of

_CHANGES = (Change.RETRY, Change.RETRY, Change.RESUME, Change.DELETE, Change.RUN, Change.RELEASE)


class Operating(Player):
    @action(5)
    def operate(self, dice: Dice) -> Iterator[Operation]:
        queue, what = one_of(NAMES, dice.how), one_of(_CHANGES, dice.spot)
        live = [job_id for name, job_id in self.model.jobs if name == queue]
        over = [each.id for each in self.model.finished if each.queue == queue]
        fit = over if what in (Change.RETRY, Change.RESUME) else live
        ids = chosen(fit, dice.spot, dice.many) + chosen(live + over, dice.how)
        if ids:
            yield Operate(dice.replica, queue, tuple(dict.fromkeys(ids)), what)
