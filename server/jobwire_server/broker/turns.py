"""Whose turn it is among the queues that want the credits of one session: stride scheduling.

Every job moves its queue's pass forward by the inverse of the queue's weight, and credits go to whoever is behind. So
among queues that all have jobs the numbers of jobs are as the weights, and none of them waits for ever: a queue is
never more than one job ahead of its part. A queue that had nothing for a while is owed nothing for it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

_NOISE = 1e-6
"""What sums of fractions are wrong by, and more."""


class Turns:
    """The passes of one session's queues."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._passes = dict.fromkeys(weights, 0.0)
        self._contending: Collection[str] = ()

    def part(self, queue: str, contending: Collection[str], free: int) -> int:
        """How many of the free credits `queue` may take, given which queues want some, itself among them."""
        self._join(contending)
        level = self._level(contending, free)
        owed = (level - self._passes[queue]) * self._weights[queue]
        return min(free, max(0, math.ceil(owed - _NOISE)))

    def charge(self, queue: str, jobs: int) -> None:
        """Notes that `queue` takes so many jobs; a negative number gives back what it did not take after all."""
        self._passes[queue] += jobs / self._weights[queue]

    def _join(self, contending: Collection[str]) -> None:
        """Who comes anew begins where the others are, not where it was when it left."""
        known = self._contending
        if all(queue in known for queue in contending):
            self._contending = contending
            return
        staying = [self._passes[queue] for queue in contending if queue in known]
        start = min(staying) if staying else max(self._passes.values())
        for queue in contending:
            if queue not in known:
                self._passes[queue] = max(self._passes[queue], start)
        self._contending = contending

    def _level(self, contending: Collection[str], free: int) -> float:
        """The pass up to which so many credits would bring all of them, if credits could be divided."""
        weights = volume = 0.0
        level = math.inf
        for at, weight in sorted((self._passes[queue], self._weights[queue]) for queue in contending):
            if at >= level:
                break
            weights += weight
            volume += weight * at
            level = (free + volume) / weights
        return level
