"""Workers come, go on elsewhere and go; replicas die and come back under another id."""

from __future__ import annotations

from collections.abc import Iterator

from jobwire_server.store.claiming import Want
from tests.model.model import Session
from tests.model.operations.claiming import ClaimJobs, ClaimSuspect
from tests.model.operations.operation import Operation
from tests.model.operations.sessions import End, Open, Park, Renew, Resume, Sight

from .rules import Dice, Player, action, chosen, handles, one_of

_SEVERAL = 4
"""So many sessions there may be at once."""
_AHEAD = (None, None, 1, 1, 2, 0, -1)


class Sessions(Player):
    @action(4)
    def open(self, dice: Dice) -> Iterator[Operation]:
        if len(self.model.sessions) < (_SEVERAL if dice.how % 4 == 0 else 2):
            yield Open(dice.replica, self.replica(dice), self.play.fresh("s"))

    @action(2)
    def resume(self, dice: Dice) -> Iterator[Operation]:
        for session in self.sessions(dice):
            leases = handles(self.model.leases(session.id))
            held = chosen(leases, dice.spot, dice.how % (len(leases) + 1)) + self.any_handles(dice, dice.how % 2)
            ahead = one_of(_AHEAD, dice.spot)
            epoch = 0 if ahead is None else max(1, session.epoch + ahead)
            yield Resume(dice.replica, self.replica(dice), session.id, epoch, tuple(dict.fromkeys(held)))

    @action(1)
    def close(self, dice: Dice) -> Iterator[Operation]:
        for session in self.sessions(dice):
            yield End(dice.replica, session.id, None, None)

    @action(2)
    def lose(self, dice: Dice) -> Iterator[Operation]:
        """The owner finds its worker dead, and counts what it knows to have been received."""
        for session in self._at_work(dice):
            leases = handles(self.model.leases(session.id))
            received = frozenset(chosen(leases, dice.spot, 10 if dice.how % 4 else 1))
            yield End(dice.replica, session.id, session.epoch + (dice.how % 10 == 1), None, received)

    @action(2)
    def lose_again(self, dice: Dice) -> Iterator[Operation]:
        """A job takes one worker after the other with it."""
        for job in self.leased(dice):
            for _ in range(2 * dice.many):
                if job.lease is None:
                    return
                session = self.model.sessions[self.model.claims[job.lease.token].session]
                yield End(dice.replica, session.id, session.epoch, None, frozenset([job.lease]))
                new = self.play.fresh("s")
                yield Open(dice.replica, self.replica(dice), new)
                want = Want(new, 1, self.play.fresh("c"), 1)
                if job.facts.suspect:
                    yield ClaimSuspect(dice.replica, self.replica(dice), job.queue, want)
                else:
                    yield ClaimJobs(dice.replica, self.replica(dice), job.queue, (want,))

    def _at_work(self, dice: Dice) -> list[Session]:
        """One that holds something, if there is one."""
        return [self.model.sessions[self.model.claims[h.token].session] for h in self.held(dice)] or self.sessions(dice)

    @action(1)
    def take_for_dead(self, dice: Dice) -> Iterator[Operation]:
        """Another replica saw its counter stand still, or thought so."""
        for session in self._at_work(dice):
            yield End(dice.replica, session.id, session.epoch, session.renewals - (dice.how % 4 == 1))

    @action(1)
    def renew(self, dice: Dice) -> Iterator[Operation]:
        epochs = tuple((session.id, session.epoch - (dice.how % 5 == 1)) for session in self.sessions(dice, 3))
        if epochs and dice.how % 4 == 0:
            yield Renew(dice.replica, self.replica(dice), epochs)

    @action(1)
    def drain_and_start_anew(self, dice: Dice) -> Iterator[Operation]:
        """A replica stops or dies; another takes its place, and finds what it left."""
        if dice.how % 2:
            yield Park(dice.replica, self.replica(dice))
        self.play.replicas[dice.replica] = self.play.fresh("r")
        yield Sight(dice.replica, self.replica(dice))
