"""Time passes, for one claim or job at a time."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from jobwire_server.domain.transitions import Standing
from tests.model.operations.time import Day, Due, Limits, Pass, Restore

from .rules import REPLICAS, SPOTS, Rules, chosen


class Time(Rules):
    @rule(replica=REPLICAS, count=st.integers(0, 10), spot=SPOTS)
    def due(self, replica, count, spot):  # type: ignore[no-untyped-def]
        jobs = self.play.model.jobs.values()
        waiting = [job.key for job in jobs if job.facts.standing is Standing.SCHEDULED]
        if waiting:
            self.act(Due(replica, tuple(chosen(waiting, spot, count))))

    @rule(replica=REPLICAS, ms=st.sampled_from([450_000, 4_000_000]), spot=SPOTS)
    def wait(self, replica, ms, spot):  # type: ignore[no-untyped-def]
        held = list(dict.fromkeys(job.lease.token for job in self.play.model.leases()))
        for token in chosen(held, spot):
            self.act(Pass(token, ms))
            self.act(Limits(replica))

    @rule(replica=REPLICAS)
    def look_at_limits(self, replica):  # type: ignore[no-untyped-def]
        if self.play.model.claims:
            self.act(Limits(replica))

    @rule(spot=SPOTS)
    def forget_an_id(self, spot):  # type: ignore[no-untyped-def]
        for each in chosen([each for each in self.play.model.finished if each.recent], spot):
            self.act(Day((each.queue, each.id)))

    @rule(replica=REPLICAS, spot=SPOTS)
    def restore(self, replica, spot):  # type: ignore[no-untyped-def]
        if spot % 10 == 1:
            self.act(Restore(replica))
