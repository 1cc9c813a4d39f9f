"""What requests say of sessions: shares in queues, pages, ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from jobwire.v1 import session_pb2
from jobwire_server.api.fields import broken, count, optional_whole, path, uuid, whole
from jobwire_server.domain import limits
from jobwire_server.domain.queues import check_queue_name
from jobwire_server.domain.shares import Share

_SESSIONS_PER_PAGE, _SESSIONS_PER_PAGE_MAX = 50, 200
_RUNNING = 20


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Which sessions to list: up to `size`, by id, after `after`, with up to `running` jobs each."""

    queue: str | None
    after: UUID | None
    size: int
    running: int


def shares(messages: Sequence[session_pb2.QueueShare], queues: Iterable[str]) -> tuple[Share, ...]:
    """The shares of a Subscribe call to `queues`."""
    count(len(messages), "shares", 0, limits.QUEUES_PER_SESSION)
    left = set(queues)
    checked = []
    for index, message in enumerate(messages):
        at = f"shares[{index}]"
        share = _share(message, at)
        if share.queue not in left:
            raise broken(path(at, "queue"), f"must name one of `queues`, and each only once; got {share.queue[:80]!r}")
        left.discard(share.queue)
        checked.append(share)
    return tuple(checked)


def _share(message: session_pb2.QueueShare, at: str) -> Share:
    lowest, highest = -limits.PRIORITY_MAX - 1, limits.PRIORITY_MAX
    weight = optional_whole(message, "weight", at, 1, limits.WEIGHT_MAX)
    share = Share(
        queue=message.queue,
        weight=1 if weight is None else weight,
        max_in_flight=optional_whole(message, "max_in_flight", at, 1, limits.IN_FLIGHT_MAX),
        min_priority=optional_whole(message, "min_priority", at, lowest, highest),
        max_priority=optional_whole(message, "max_priority", at, lowest, highest),
    )
    if share.min_priority is not None and share.max_priority is not None and share.max_priority < share.min_priority:
        raise broken(
            path(at, "max_priority"), f"must not be below `min_priority` {share.min_priority}; got {share.max_priority}"
        )
    return share


def session_page(request: session_pb2.ListSessionsRequest) -> SessionPage:
    """Which sessions to list."""
    running = optional_whole(request, "max_running", "", 0, limits.IN_FLIGHT_MAX)
    return SessionPage(
        queue=check_queue_name(request.queue) if request.queue else None,
        after=uuid(request.page_token, "page_token") if request.page_token else None,
        size=whole(request.page_size, "page_size", 0, _SESSIONS_PER_PAGE_MAX) or _SESSIONS_PER_PAGE,
        running=_RUNNING if running is None else running,
    )


def drained_session(request: session_pb2.DrainSessionRequest) -> UUID:
    """Which session's worker is to leave."""
    return uuid(request.session_id, "session_id")
