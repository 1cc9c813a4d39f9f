"""What a handler takes of each of its queues, when it has several or does not want all of one."""

from __future__ import annotations

from dataclasses import dataclass

from jobwire.v1 import session_pb2


@dataclass(frozen=True)
class QueueShare:
    """One queue's share in a handler's places.

    ```python
    @worker.handler(QueueShare("mail", weight=3), QueueShare("reports", max_in_flight=2), concurrency=10)
    ```

    Args:
        queue: the queue.
        weight: while several of the handler's queues have jobs waiting, they are run in proportion to the weights, 1 to
            100. A queue that has nothing holds up no other, and one of weight 1 has its turn beside any other.
        max_in_flight: how many of the places its jobs may take, 1 to 1000. None: all.
        min_priority: only jobs of this priority or a higher one. None: any.
        max_priority: only jobs of this priority or a lower one. None: any.
    """

    queue: str
    weight: int = 1
    max_in_flight: int | None = None
    min_priority: int | None = None
    max_priority: int | None = None


def share_of(queue: str | QueueShare) -> QueueShare:
    """A queue's share, the whole if only its name is given."""
    return queue if isinstance(queue, QueueShare) else QueueShare(queue)


def share_message(share: QueueShare) -> session_pb2.QueueShare:
    """A share, as it travels; the rules are the server's."""
    return session_pb2.QueueShare(
        queue=share.queue,
        weight=share.weight,
        max_in_flight=share.max_in_flight,
        min_priority=share.min_priority,
        max_priority=share.max_priority,
    )


def share_from(message: session_pb2.QueueShare) -> QueueShare:
    """A share that was said."""
    return QueueShare(
        message.queue,
        message.weight if message.HasField("weight") else 1,
        message.max_in_flight if message.HasField("max_in_flight") else None,
        message.min_priority if message.HasField("min_priority") else None,
        message.max_priority if message.HasField("max_priority") else None,
    )
