"""Workers speak of their deliveries: of those they hold, of others they held once, and of some that never were."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import AckItem, Complete, Extend, Fail, Release
from tests.model.operations.acking import Ack
from tests.model.stage import HOUR_MS, QUEUES

from .rules import COUNTS, REPLICAS, SPOTS, Rules, chosen

COMPLETE = Complete("1")
FAILS = [Fail("Error", "no", "", permanent, again) for permanent in (False, True) for again in (None, 0, HOUR_MS)]
RELEASES = [Release(None), Release(0), Release(HOUR_MS)]
EXTENDS = [Extend(None, None), Extend(1_000_000, None)]
ANYTHING = [COMPLETE, *FAILS, *RELEASES, *EXTENDS]


class Acking(Rules):
    @rule(replica=REPLICAS, count=COUNTS, spot=SPOTS)
    def complete(self, replica, count, spot):  # type: ignore[no-untyped-def]
        self._say(replica, self.held(spot, count), [COMPLETE])

    @rule(replica=REPLICAS, count=COUNTS, spot=SPOTS, how=st.sampled_from(FAILS))
    def fail(self, replica, count, spot, how):  # type: ignore[no-untyped-def]
        self._say(replica, self.held(spot, count), [how])

    @rule(replica=REPLICAS, count=COUNTS, spot=SPOTS, how=st.sampled_from(RELEASES))
    def release(self, replica, count, spot, how):  # type: ignore[no-untyped-def]
        self._say(replica, self.held(spot, count), [how])

    @rule(replica=REPLICAS, count=COUNTS, spot=SPOTS, how=st.sampled_from(EXTENDS))
    def extend(self, replica, count, spot, how):  # type: ignore[no-untyped-def]
        self._say(replica, self.held(spot, count), [how])

    @rule(replica=REPLICAS, spot=SPOTS)
    def say_anything(self, replica, spot):  # type: ignore[no-untyped-def]
        known = chosen(list(self.play.handles), spot, 2)
        self._say(replica, known + self.held(spot, 2), chosen(ANYTHING, spot, 3))

    @rule(replica=REPLICAS, spot=SPOTS)
    def say_of_another(self, replica, spot):  # type: ignore[no-untyped-def]
        """A handle that no claim made: another's place, token, job or queue."""
        handles = chosen(list(self.play.handles), spot, 2)
        if len(handles) < 2:
            return
        one, other = handles
        made = [
            Handle(one.queue, one.job_id, one.token, one.place % 3 + 1),
            Handle(one.queue, one.job_id, other.token, one.place),
            Handle(one.queue, other.job_id, one.token, one.place),
            Handle(next(q.name for q in QUEUES if q.name != one.queue), one.job_id, one.token, one.place),
        ]
        self._say(replica, chosen(made, spot), chosen(ANYTHING, spot))

    def held(self, spot, count):  # type: ignore[no-untyped-def]
        """Deliveries whose leases are valid."""
        return chosen([job.lease for job in self.play.model.leases()], spot, count)

    def _say(self, replica, handles, outcomes):  # type: ignore[no-untyped-def]
        items = {handle: AckItem(handle, outcomes[place % len(outcomes)]) for place, handle in enumerate(handles)}
        if items:
            self.act(Ack(replica, tuple(items.values())))
