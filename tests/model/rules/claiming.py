"""Jobs are taken, by who may and by who may not any more."""

from __future__ import annotations

from collections.abc import Iterator

from jobwire_server.store.claiming import Want
from tests.model.operations.claiming import ClaimJobs, ClaimSuspect, Forget, GiveBack
from tests.model.operations.operation import Operation
from tests.model.stage import NAMES

from .rules import Dice, Player, action, chosen, one_of

_STALE = (0,) * 8 + (-1, 1)
"""By how much the epoch that a replica knows differs from the session's."""


class Claiming(Player):
    @action(6)
    def claim(self, dice: Dice) -> Iterator[Operation]:
        owner = self.replica(dice)
        # Of its own sessions, as a replica does, and now and then of any.
        those = [session for session in self.model.sessions.values() if session.owner == owner or dice.how % 8 == 1]
        wants = [
            Want(
                session.id, session.epoch + one_of(_STALE, dice.spot), self.play.fresh("c"), 1 + (dice.how + place) % 3
            )
            for place, session in enumerate(chosen(those, dice.spot, dice.many))
        ]
        queue = self._queue(dice)
        if wants and queue:
            yield ClaimJobs(dice.replica, owner, queue, tuple(wants))

    @action(2)
    def claim_all(self, dice: Dice) -> Iterator[Operation]:
        queue = self._queue(dice)
        for session in self.sessions(dice) if queue else []:
            want = Want(session.id, session.epoch, self.play.fresh("c"), 20)
            yield ClaimJobs(dice.replica, session.owner, queue, (want,))

    def _queue(self, dice: Dice) -> str:
        """One where something is ready, or now and then any."""
        some = [name for name in NAMES if self.model.ready(name, suspect=False)] or NAMES[: dice.how % 10 == 1]
        return one_of(some, dice.spot) if some else ""

    @action(3)
    def claim_suspect(self, dice: Dice) -> Iterator[Operation]:
        suspects = [job.queue for job in self.model.jobs.values() if job.facts.suspect]
        for session in self.sessions(dice):
            want = Want(session.id, session.epoch + one_of(_STALE, dice.spot), self.play.fresh("c"), 1)
            for queue in chosen(suspects, dice.how):
                yield ClaimSuspect(dice.replica, session.owner, queue, want)

    @action(1)
    def give_back(self, dice: Dice) -> Iterator[Operation]:
        for claim in chosen(list(self.model.claims.values()), dice.spot):
            yield GiveBack(dice.replica, claim.queue, claim.token, claim.session)

    @action(1)
    def fence(self, dice: Dice) -> Iterator[Operation]:
        for session in self.sessions(dice):
            yield GiveBack(dice.replica, one_of(NAMES, dice.how), self.play.fresh("c"), session.id)

    @action(1)
    def forget(self, dice: Dice) -> Iterator[Operation]:
        held = {job.lease.token for job in self.model.leases() if job.lease is not None}
        over = [(claim.queue, claim.token) for claim in self.model.claims.values() if claim.token not in held]
        if over:
            yield Forget(dice.replica, tuple(over))
