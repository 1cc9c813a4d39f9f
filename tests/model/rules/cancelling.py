"""An operator stops jobs; and what ends leases meets, two at once."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from jobwire_server.domain.jobs import AckItem
from tests.model.operations.acking import Ack
from tests.model.operations.cancelling import Cancel
from tests.model.operations.operation import Operation, Race
from tests.model.operations.sessions import End
from tests.model.operations.time import Limits, Pass
from tests.model.stage import QUEUES

from .acking import ANYTHING
from .rules import COUNTS, REPLICAS, SPOTS, Rules, chosen

_QUEUES = st.sampled_from([queue.name for queue in QUEUES])


class Cancelling(Rules):
    @rule(replica=REPLICAS, queue=_QUEUES, count=COUNTS, spot=SPOTS)
    def cancel(self, replica, queue, count, spot):  # type: ignore[no-untyped-def]
        ids = chosen([job_id for name, job_id in self.play.model.jobs if name == queue], spot, count)
        over = [each.id for each in self.play.model.finished if each.queue == queue]
        ids += chosen(over, spot) if spot % 4 == 1 else []
        if ids:
            self.act(Cancel(replica, queue, tuple(dict.fromkeys(ids))))


class Racing(Rules):
    @rule(spot=SPOTS, pair=st.tuples(st.integers(0, 4), st.integers(0, 4)))
    def end_at_once(self, spot, pair):  # type: ignore[no-untyped-def]
        """Two of what ends a lease, about the same one, each at a replica of its own."""
        for job in chosen(self.play.model.leases(), spot):
            token = job.lease.token
            session = self.play.model.sessions[self.play.model.claims[token].session]
            if 4 in pair:
                self.act(Pass(token, 4_000_000))
            ways: list[list[Operation]] = [
                [
                    Ack(replica, (AckItem(job.lease, chosen(ANYTHING, spot + replica)[0]),)),
                    Cancel(replica, job.queue, (job.id,)),
                    End(replica, session.id, session.epoch, None, frozenset([job.lease])),
                    End(replica, session.id, session.epoch, session.renewals),
                    Limits(replica),
                ]
                for replica in (0, 1)
            ]
            self.act(Race(ways[0][pair[0]], ways[1][pair[1]]))
