"""Jobs come in: new ones, known ones, now, later, of any priority."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from jobwire_server.domain.jobs import NewJob
from jobwire_server.domain.queues import NOTHING_SAID, JobOptionsPatch
from jobwire_server.store.claiming import Want
from tests.model.operations.publishing import HandOver, Publish, PublishInSql
from tests.model.stage import HOUR_MS, QUEUES

from .rules import COUNTS, REPLICAS, SPOTS, Rules, chosen

MANY = 20
"""With so many live jobs no new ones are published: a play is about few jobs that much happens to."""
_QUEUES = st.sampled_from(QUEUES)
_PRIORITIES = st.integers(-1, 1)
_STARTS = st.sampled_from([None, 0, HOUR_MS])
_RETRIES = st.sampled_from([NOTHING_SAID, JobOptionsPatch(retry_limit=0), JobOptionsPatch(retry_limit=1)])


class Publishing(Rules):
    @rule(
        replica=REPLICAS,
        queue=_QUEUES,
        count=COUNTS,
        priority=_PRIORITIES,
        start=_STARTS,
        options=_RETRIES,
        known=SPOTS,
    )
    def publish(self, replica, queue, count, priority, start, options, known):  # type: ignore[no-untyped-def]
        ids = self._ids(queue.name, count, known)
        jobs = [
            NewJob(job_id, f"{known % 2}", priority=priority * (place % 2), start_in_ms=start, options=options)
            for place, job_id in enumerate(ids)
        ]
        if jobs:
            self.act(Publish(replica, queue, tuple(jobs)))

    @rule(queue=_QUEUES, priority=_PRIORITIES, start=_STARTS, known=SPOTS)
    def publish_in_sql(self, queue, priority, start, known):  # type: ignore[no-untyped-def]
        for job_id in self._ids(queue.name, 1, known):
            self.act(PublishInSql(queue, NewJob(job_id, f"{known % 2}", priority=priority, start_in_ms=start)))

    @rule(replica=REPLICAS, queue=_QUEUES, count=COUNTS, priority=_PRIORITIES, known=SPOTS, spot=SPOTS)
    def hand_over(self, replica, queue, count, priority, known, spot):  # type: ignore[no-untyped-def]
        ids = self._ids(queue.name, count, known)
        jobs = [NewJob(job_id, "0", priority=priority * (place % 2)) for place, job_id in enumerate(ids)]
        wants = [
            Want(session.id, session.epoch, self.play.fresh("c"), 1 + (spot + place) % 2, before=spot % 3)
            for place, session in enumerate(self.sessions(spot, 2))
        ]
        if jobs and wants:
            self.act(HandOver(replica, self.play.replicas[replica], queue, tuple(jobs), tuple(wants)))

    def _ids(self, queue, count, known):  # type: ignore[no-untyped-def]
        """New ids, with a known one among them now and then."""
        model = self.play.model
        ids = [self.play.fresh("j") for _ in range(count if len(model.jobs) < MANY else 0)]
        if known % 4 == 1:
            there = [job_id for name, job_id in model.jobs if name == queue]
            ids += chosen(there + [each.id for each in model.finished if each.queue == queue], known)
        if known % 32 == 2:
            ids += ids[:1]
        return ids
