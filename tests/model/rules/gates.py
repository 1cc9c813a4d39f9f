"""Jobs of keys and groups that wait for their turn, and queues that are paused."""

from __future__ import annotations

from collections.abc import Iterator

from jobwire_server.domain.jobs import Labels, NewJob
from tests.model.operations.gates import Admit, Pause, PublishKeyed
from tests.model.operations.operation import Operation
from tests.model.stage import GATES, GROUPS, HOUR_MS, KEYS, NAMES

from .publishing import MANY, RETRIES
from .rules import Dice, Player, action, chosen, one_of

_KEYS = (Labels(key="x"), Labels(key="y"), Labels())
_GROUPS = (Labels(group="x"), Labels(group="y"))
_STARTS = (None,) * 5 + (HOUR_MS,)


class Gates(Player):
    @action(6)
    def publish_keyed(self, dice: Dice) -> Iterator[Operation]:
        queue = one_of((KEYS, GROUPS), dice.how)
        labels = _KEYS if queue is KEYS else _GROUPS
        ids = [self.play.fresh("j") for _ in range(dice.many if len(self.model.jobs) < MANY else 0)]
        if dice.spot % 8 == 1:
            ids += chosen([each.id for each in self.model.finished if each.queue == queue.name], dice.spot)
        jobs = tuple(
            NewJob(
                job_id,
                f"{dice.spot % 2}",
                priority=(dice.spot + place) % 3 - 1,
                start_in_ms=one_of(_STARTS, dice.spot),
                options=one_of(RETRIES, dice.how // 2),
                labels=one_of(labels, dice.spot // 3 + place),
            )
            for place, job_id in enumerate(ids)
        )
        if jobs:
            yield PublishKeyed(dice.replica, queue, jobs)
            if dice.spot % 2:
                yield Admit(dice.replica, queue.name)

    @action(5)
    def admit(self, dice: Dice) -> Iterator[Operation]:
        for queue in chosen([job.queue for job in self.model.jobs.values() if job.queue in GATES], dice.spot):
            yield Admit(dice.replica, queue)

    @action(1)
    def pause(self, dice: Dice) -> Iterator[Operation]:
        if self.model.paused:
            yield Pause(dice.replica, one_of(sorted(self.model.paused), dice.spot), paused=False)
        elif dice.how % 3 == 0:
            yield Pause(dice.replica, one_of(NAMES, dice.spot), paused=True)
