"""What the actions of a play share: how they are put into the deck, and how they choose whom they are about.

An action is thrown with a few small numbers, and takes them for places in lists that the model has: so a play from
which some actions were taken out still makes sense. One that finds nobody to act on yields nothing, and the next one in
the deck is asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from jobwire_server.domain.handles import Handle
from tests.model.model import Job, Model, Session
from tests.model.operations.operation import Operation
from tests.model.play import Play

T = TypeVar("T")


class Dice(NamedTuple):
    """The numbers of one throw: at which of two replicas, how many (1 to 3), in which way and about whom (to 999)."""

    replica: int
    many: int
    how: int
    spot: int


Action = Callable[[Any, Dice], Iterable[Operation]]


def action(weight: int) -> Callable[[Action], Action]:
    """Puts a method into the deck so many times."""

    def mark(method: Action) -> Action:
        method.weight = weight
        return method

    return mark


class Player:
    """Who plays. The actions of a topic are a mixin over this."""

    def __init__(self, play: Play) -> None:
        self.play = play

    @classmethod
    def deck(cls) -> list[str]:
        """The names of all actions, each as often as it weighs."""
        weights = {name: getattr(getattr(cls, name), "weight", 0) for name in dir(cls)}
        return [name for name in sorted(weights) for _ in range(weights[name])]

    @property
    def model(self) -> Model:
        return self.play.model

    def replica(self, dice: Dice) -> UUID:
        """The id of the replica that acts."""
        return self.play.replicas[dice.replica]

    def sessions(self, dice: Dice, count: int = 1) -> list[Session]:
        """Some sessions."""
        return chosen(list(self.model.sessions.values()), dice.spot, count)

    def leased(self, dice: Dice, count: int = 1) -> list[Job]:
        """Some jobs under a valid lease."""
        return chosen(self.model.leases(), dice.spot, count)

    def held(self, dice: Dice, count: int = 1) -> list[Handle]:
        """Deliveries whose leases are valid."""
        return handles(self.leased(dice, count))

    def any_handles(self, dice: Dice, count: int = 1) -> list[Handle]:
        """Deliveries that ever were."""
        return chosen(list(self.play.handles), dice.spot, count)


def handles(jobs: Iterable[Job]) -> list[Handle]:
    """The deliveries that hold the leases of jobs."""
    return [job.lease for job in jobs if job.lease is not None]


def chosen(those: Sequence[T], spot: int, count: int = 1) -> list[T]:
    """Some of those, which ones being said by a number: 0 are the first."""
    if not spot:
        return list(those[:count])
    return random.Random(spot).sample(those, min(count, len(those)))


def one_of(those: Sequence[T], number: int) -> T:
    """One of those that there always are."""
    return those[number % len(those)]
