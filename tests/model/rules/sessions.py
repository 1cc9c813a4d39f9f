"""Workers come, go on elsewhere and go; replicas die and come back under another id."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.model.operations.sessions import End, Open, Park, Renew, Resume, Sight

from .rules import REPLICAS, SPOTS, Rules, chosen

_SEVERAL = 4
"""So many sessions there may be at once."""


class Sessions(Rules):
    @initialize()
    def begin(self):  # type: ignore[no-untyped-def]
        for replica, owner in enumerate(self.play.replicas):
            self.act(Open(replica, owner, self.play.fresh("s")))

    @rule(replica=REPLICAS)
    def open(self, replica):  # type: ignore[no-untyped-def]
        if len(self.play.model.sessions) < _SEVERAL:
            self.act(Open(replica, self.play.replicas[replica], self.play.fresh("s")))

    @rule(replica=REPLICAS, ahead=st.sampled_from([None, None, 1, 2, 0, -1]), spot=SPOTS)
    def resume(self, replica, ahead, spot):  # type: ignore[no-untyped-def]
        for session in self.sessions(spot):
            leases = [job.lease for job in self.play.model.leases(session.id)]
            held = chosen(leases, spot, spot % (len(leases) + 1)) + chosen(list(self.play.handles), spot, spot % 2)
            epoch = 0 if ahead is None else max(1, session.epoch + ahead)
            self.act(Resume(replica, self.play.replicas[replica], session.id, epoch, tuple(dict.fromkeys(held))))

    @rule(replica=REPLICAS, spot=SPOTS)
    def close(self, replica, spot):  # type: ignore[no-untyped-def]
        for session in self.sessions(spot):
            self.act(End(replica, session.id, None, None))

    @rule(replica=REPLICAS, ahead=st.sampled_from([0, 0, 0, 1]), spot=SPOTS)
    def lose(self, replica, ahead, spot):  # type: ignore[no-untyped-def]
        """The owner finds its worker dead, and counts what it knows to have been received."""
        for session in self.sessions(spot):
            leases = [job.lease for job in self.play.model.leases(session.id)]
            received = frozenset(chosen(leases, spot, 10 if spot % 4 else 1))
            self.act(End(replica, session.id, session.epoch + ahead, None, received))

    @rule(replica=REPLICAS, behind=st.sampled_from([0, 0, 0, 1]), spot=SPOTS)
    def take_for_dead(self, replica, behind, spot):  # type: ignore[no-untyped-def]
        """Another replica saw its counter stand still."""
        for session in self.sessions(spot):
            self.act(End(replica, session.id, session.epoch, session.renewals - behind))

    @rule(replica=REPLICAS, spot=SPOTS)
    def renew(self, replica, spot):  # type: ignore[no-untyped-def]
        epochs = tuple((session.id, session.epoch - (spot % 5 == 1)) for session in self.sessions(spot, 3))
        self.act(Renew(replica, self.play.replicas[replica], epochs))

    @rule(replica=REPLICAS)
    def drain(self, replica):  # type: ignore[no-untyped-def]
        self.act(Park(replica, self.play.replicas[replica]))

    @rule(replica=REPLICAS)
    def start_anew(self, replica):  # type: ignore[no-untyped-def]
        """A replica dies; another takes its place, and finds what it left."""
        self.play.replicas[replica] = self.play.fresh("r")
        self.act(Sight(replica, self.play.replicas[replica]))
