"""Jobs come in: new ones, known ones, now, later, of any priority."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from jobwire_server.domain.jobs import NewJob
from jobwire_server.domain.queues import NOTHING_SAID, JobOptionsPatch, Queue
from jobwire_server.store.claiming import Want
from tests.model.operations.operation import Operation
from tests.model.operations.publishing import HandOver, Publish, PublishInSql
from tests.model.stage import HOUR_MS, QUEUES

from .rules import Dice, Player, action, chosen, one_of

MANY = 20
"""With so many live jobs no new ones are published: a play is about few jobs that much happens to."""
_STARTS = (None, None, 0, HOUR_MS)
RETRIES = (NOTHING_SAID, JobOptionsPatch(retry_limit=0), JobOptionsPatch(retry_limit=1))


class Publishing(Player):
    @action(4)
    def publish(self, dice: Dice) -> Iterator[Operation]:
        queue = one_of(QUEUES, dice.how)
        if jobs := self._jobs(queue, dice, one_of(_STARTS, dice.spot)):
            yield Publish(dice.replica, queue, jobs)

    @action(1)
    def publish_in_sql(self, dice: Dice) -> Iterator[Operation]:
        queue = one_of(QUEUES, dice.how)
        for job in self._jobs(queue, dice, one_of(_STARTS, dice.spot))[:1]:
            yield PublishInSql(queue, job._replace(options=NOTHING_SAID))

    @action(3)
    def hand_over(self, dice: Dice) -> Iterator[Operation]:
        queue, spot = one_of(QUEUES, dice.how), dice.spot
        wants = [
            Want(session.id, session.epoch, self.play.fresh("c"), 1 + (spot + place) % 2, before=spot % 3)
            for place, session in enumerate(self.sessions(dice, 2))
        ]
        jobs = self._jobs(queue, dice, None)
        if jobs and wants:
            yield HandOver(dice.replica, self.replica(dice), queue, jobs, tuple(wants))

    def _jobs(self, queue: Queue, dice: Dice, start: int | None) -> tuple[NewJob, ...]:
        return tuple(
            NewJob(
                job_id,
                f"{dice.spot % 2}",
                priority=(dice.spot % 3 - 1) * (place % 2),
                start_in_ms=start,
                options=one_of(RETRIES, dice.how // 2),
            )
            for place, job_id in enumerate(self._ids(queue.name, dice))
        )

    def _ids(self, queue: str, dice: Dice) -> list[UUID]:
        """New ids, with a known one among them now and then."""
        ids = [self.play.fresh("j") for _ in range(dice.many if len(self.model.jobs) < MANY else 0)]
        if dice.spot % 4 == 1:
            live = [job_id for name, job_id in self.model.jobs if name == queue]
            ids += chosen(live + [each.id for each in self.model.finished if each.queue == queue], dice.spot)
        if dice.spot % 8 == 3:
            ids += chosen([key[1] for key in self.model.deleted if key[0] == queue], dice.spot)
        if dice.spot % 32 == 2:
            ids += ids[:1]
        return ids
