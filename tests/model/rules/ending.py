"""Leases end while their worker was told to stop; and two of what ends one meet, each at a replica of its own."""

from __future__ import annotations

from collections.abc import Iterator

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import AckItem
from tests.model.operations.acking import Ack
from tests.model.operations.cancelling import Cancel
from tests.model.operations.operation import Operation, Race
from tests.model.operations.sessions import End
from tests.model.operations.time import Limits, Pass

from .acking import ANYTHING
from .rules import Dice, Player, action, one_of
from .time import LONG_MS


class Ending(Player):
    @action(4)
    def end_at_once(self, dice: Dice) -> Iterator[Operation]:
        for handle in self.held(dice):
            first, second = (
                one_of(self._ends(handle, dice, 0), dice.how),
                one_of(self._ends(handle, dice, 1), dice.spot),
            )
            if isinstance(first, Limits) or isinstance(second, Limits):
                yield Pass(handle.token, LONG_MS)
            yield Race(first, second)

    @action(5)
    def end_in_the_grace(self, dice: Dice) -> Iterator[Operation]:
        """A job is told to stop, because somebody wants it to or for its time limit, and then comes its end."""
        for handle in self.held(dice):
            if dice.how % 2:
                yield Cancel(dice.replica, handle.queue, (handle.job_id,))
            else:
                yield Pass(handle.token, LONG_MS)
                yield Limits(dice.replica)
            end = one_of(self._ends(handle, dice, dice.replica), dice.spot)
            if isinstance(end, Limits):
                yield Pass(handle.token, LONG_MS)
            yield end

    def _ends(self, handle: Handle, dice: Dice, replica: int) -> list[Operation]:
        session = self.model.sessions[self.model.claims[handle.token].session]
        said = [Ack(replica, (AckItem(handle, one_of(ANYTHING, dice.spot // 7 + way)),)) for way in (replica, 5)]
        return [
            *said,
            Cancel(replica, handle.queue, (handle.job_id,)),
            End(replica, session.id, session.epoch, None, frozenset([handle])),
            End(replica, session.id, session.epoch, session.renewals),
            Limits(replica),
            Limits(replica),
        ]
