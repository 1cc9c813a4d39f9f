"""Workers speak of their deliveries: of those they hold, of others they held once, and of some that never were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import AckItem, Complete, Extend, Fail, Outcome, Release
from tests.model.operations.acking import Ack
from tests.model.operations.operation import Operation
from tests.model.stage import HOUR_MS, QUEUES

from .rules import Dice, Player, action, chosen, one_of

COMPLETE: Sequence[Outcome] = (Complete("1"),)
FAILS: Sequence[Outcome] = tuple(
    Fail("Error", "no", "", permanent, again) for permanent in (False, False, True) for again in (None, 0, HOUR_MS)
)
RELEASES: Sequence[Outcome] = (Release(None), Release(0), Release(HOUR_MS))
EXTENDS: Sequence[Outcome] = (Extend(None, None), Extend(1_000_000, None))
ANYTHING: Sequence[Outcome] = (*COMPLETE, *FAILS, *RELEASES, *EXTENDS)


class Acking(Player):
    @action(5)
    def complete(self, dice: Dice) -> Iterator[Operation]:
        yield from _ack(dice, self.held(dice, dice.many), COMPLETE)

    @action(5)
    def fail(self, dice: Dice) -> Iterator[Operation]:
        yield from _ack(dice, self.held(dice, dice.many), [one_of(FAILS, dice.how)])

    @action(4)
    def release(self, dice: Dice) -> Iterator[Operation]:
        yield from _ack(dice, self.held(dice, dice.many), [one_of(RELEASES, dice.how)])

    @action(3)
    def extend(self, dice: Dice) -> Iterator[Operation]:
        yield from _ack(dice, self.held(dice, dice.many), [one_of(EXTENDS, dice.how)])

    @action(3)
    def say_anything(self, dice: Dice) -> Iterator[Operation]:
        """In one breath, also of deliveries that are over."""
        yield from _ack(dice, self.any_handles(dice, 2) + self.held(dice, 2), chosen(ANYTHING, dice.how, 3))

    @action(1)
    def say_of_another(self, dice: Dice) -> Iterator[Operation]:
        """A handle that no claim made: another's place, token, job or queue."""
        match self.any_handles(dice, 2):
            case [one, other]:
                elsewhere = next(queue.name for queue in QUEUES if queue.name != one.queue)
                made = [
                    Handle(one.queue, one.job_id, one.token, one.place % 3 + 1),
                    Handle(one.queue, one.job_id, other.token, one.place),
                    Handle(one.queue, other.job_id, one.token, one.place),
                    Handle(elsewhere, one.job_id, one.token, one.place),
                ]
                yield from _ack(dice, [one_of(made, dice.how)], [one_of(ANYTHING, dice.how)])


def _ack(dice: Dice, handles: Sequence[Handle], outcomes: Sequence[Outcome]) -> Iterator[Operation]:
    items = {handle: AckItem(handle, one_of(outcomes, place)) for place, handle in enumerate(handles)}
    if items:
        yield Ack(dice.replica, tuple(items.values()))
