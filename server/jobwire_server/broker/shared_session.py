"""A session over several queues, or over a part of one: what it takes from each is its share in that queue.

Its credits are dealt out by turns (`turns`) among the lanes that may have jobs, while there are not enough for all. The
sum of what is unfinished and reserved is bounded as in any session, and in each queue with a limit by that as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from uuid import UUID

from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import Delivery
from jobwire_server.domain.shares import Ranks, Share

from .messages import Subscription
from .session import Session
from .turns import Turns


def session_for(session_id: UUID, epoch: int, subscription: Subscription) -> Session:
    """The session that these terms ask for: one queue without a share needs none of what is here."""
    shared = len(subscription.queues) > 1 or subscription.shares
    return (SharedSession if shared else Session)(session_id, epoch, subscription)


class SharedSession(Session):
    """A session with a share in each of its queues."""

    def __init__(self, session_id: UUID, epoch: int, subscription: Subscription) -> None:
        super().__init__(session_id, epoch, subscription)
        said = {share.queue: share for share in subscription.shares}
        self._shares = {queue: said.get(queue) or Share(queue) for queue in subscription.queues}
        self._limited = any(share.max_in_flight is not None for share in self._shares.values())
        self._turns = Turns({queue: share.weight for queue, share in self._shares.items()})
        self._reserved: Counter[str] = Counter()
        self._unfinished: Counter[str] = Counter()

    def ranks(self, queue: str) -> Ranks:
        """Which jobs of `queue` it takes."""
        return self._shares[queue].ranks

    def credits_for(self, queue: str) -> int:
        """How many more jobs of `queue` may be claimed for it now, the other queues' turns considered."""
        free = super().credits_for(queue)
        room = self._room(queue)
        if not free or room <= 0:
            return 0
        contending = {
            lane.queue
            for lane in self.lanes
            if (((lane.hopeful or lane.claiming) and lane.well) or self._reserved[lane.queue])
            and self._room(lane.queue) > 0
        }
        return min(room, self._turns.part(queue, contending | {queue}, free))

    def wants(self, queue: str) -> bool:
        """Whether to look for jobs of `queue`, though others may have all its credits just now."""
        return self.stream is not None and self.max_in_flight > 0 and self._room(queue) > 0

    def _room(self, queue: str) -> int:
        limit = self._shares[queue].max_in_flight
        return self.max_in_flight if limit is None else limit - self._unfinished[queue] - self._reserved[queue]

    def reserve(self, queue: str, count: int) -> None:
        """Takes credits for a claim; the queue's turn moves on with them."""
        super().reserve(queue, count)
        self._reserved[queue] += count
        self._turns.charge(queue, count)

    def refund(self, queue: str, count: int) -> None:
        """Gives them back when the claim is over; what it brought is charged as it is delivered."""
        super().refund(queue, count)
        self._reserved[queue] -= count
        self._turns.charge(queue, -count)

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Puts claimed jobs of one queue in line for the client."""
        super().deliver(deliveries)
        queue = deliveries[0].handle.queue
        self._turns.charge(queue, len(deliveries))
        if self._limited:
            self._unfinished[queue] += len(deliveries)

    def hold(self, handles: dict[Handle, bool]) -> None:
        """After a resume: these deliveries go on, of queues that it may have no share in any more."""
        super().hold(handles)
        self._unfinished = Counter(handle.queue for handle in handles)

    def settle(self, handles: Iterable[Handle]) -> list[Handle]:
        """The client has settled these deliveries; their queues have room again."""
        if not self._limited:
            return super().settle(handles)
        settled = dict.fromkeys(handle for handle in handles if handle in self.in_flight)
        self._unfinished.subtract(handle.queue for handle in settled)
        return super().settle(settled)
