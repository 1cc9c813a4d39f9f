"""What a session wants of one queue: which part of its credits, at most how many jobs at once, of which priorities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Ranks(NamedTuple):
    """A part of the claim order, both ends included. A rank is minus a priority."""

    low: int = -(2**31)
    high: int = 2**31 - 1


EVERY_RANK = Ranks()


@dataclass(frozen=True, slots=True)
class Share:
    """A session's share in one queue; None: no bound of its own."""

    queue: str
    weight: int = 1
    max_in_flight: int | None = None
    min_priority: int | None = None
    max_priority: int | None = None

    @property
    def ranks(self) -> Ranks:
        """Where in the claim order the jobs are that it wants."""
        return Ranks(
            EVERY_RANK.low if self.max_priority is None else -self.max_priority,
            EVERY_RANK.high if self.min_priority is None else -self.min_priority,
        )
