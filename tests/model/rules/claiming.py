"""Jobs are taken, by who may and by who may not any more."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from jobwire_server.store.claiming import Want
from tests.model.operations.claiming import ClaimJobs, ClaimSuspect, Forget, GiveBack
from tests.model.stage import QUEUES

from .rules import COUNTS, REPLICAS, SPOTS, Rules, chosen

_QUEUES = st.sampled_from([queue.name for queue in QUEUES])
_STALE = st.sampled_from([0] * 9 + [-1, 1])
"""By how much the epoch that a replica knows differs from the session's."""


class Claiming(Rules):
    @rule(replica=REPLICAS, queue=_QUEUES, count=COUNTS, stale=_STALE, spot=SPOTS)
    def claim(self, replica, queue, count, stale, spot):  # type: ignore[no-untyped-def]
        owner = self.play.replicas[replica]
        # Of its own sessions, as a replica does, and now and then of any.
        those = [s for s in self.play.model.sessions.values() if s.owner == owner or spot % 8 == 1]
        wants = [
            Want(session.id, session.epoch + stale, self.play.fresh("c"), 1 + (count + place) % 3)
            for place, session in enumerate(chosen(those, spot, count))
        ]
        if wants:
            self.act(ClaimJobs(replica, owner, queue, tuple(wants)))

    @rule(queue=_QUEUES, spot=SPOTS)
    def claim_all(self, queue, spot):  # type: ignore[no-untyped-def]
        for replica, owner in enumerate(self.play.replicas):
            mine = [session for session in self.play.model.sessions.values() if session.owner == owner]
            for session in chosen(mine, spot):
                want = Want(session.id, session.epoch, self.play.fresh("c"), 10)
                self.act(ClaimJobs(replica, owner, queue, (want,)))

    @rule(replica=REPLICAS, queue=_QUEUES, stale=_STALE, spot=SPOTS)
    def claim_suspect(self, replica, queue, stale, spot):  # type: ignore[no-untyped-def]
        for session in self.sessions(spot):
            want = Want(session.id, session.epoch + stale, self.play.fresh("c"), 1)
            self.act(ClaimSuspect(replica, session.owner, queue, want))

    @rule(replica=REPLICAS, queue=_QUEUES, spot=SPOTS)
    def give_back(self, replica, queue, spot):  # type: ignore[no-untyped-def]
        claims = [claim for claim in self.play.model.claims.values() if claim.queue == queue]
        for claim in chosen(claims, spot) if spot % 4 else []:
            self.act(GiveBack(replica, queue, claim.token, claim.session))
        for session in self.sessions(spot) if not spot % 4 else []:
            self.act(GiveBack(replica, queue, self.play.fresh("c"), session.id))

    @rule(replica=REPLICAS)
    def forget(self, replica):  # type: ignore[no-untyped-def]
        held = {job.lease.token for job in self.play.model.leases()}
        over = [(claim.queue, claim.token) for claim in self.play.model.claims.values() if claim.token not in held]
        if over:
            self.act(Forget(replica, tuple(over)))
