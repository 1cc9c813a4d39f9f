"""Requests about dead letters and blocked keys, checked and turned into the domain's values."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from jobwire.v1 import dead_letters_pb2 as pb
from jobwire_server.api.fields import broken, count, plain_text, timestamp, uuid, whole
from jobwire_server.domain import limits
from jobwire_server.domain.dead_letters import RedriveFilter, RedriveOrder, RedrivePlace, Unblock
from jobwire_server.domain.queues import check_queue_name

_PER_PAGE, _PER_PAGE_MAX = 50, 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PLACE = re.compile(r"([wf])\.(\d{1,18})\.(\d{1,18})\.([0-9a-f]{32})?")
_AFTER = re.compile(r"([A-Za-z0-9_-]{1,63})/([0-9a-f-]{36})/(\d{1,18})")


@dataclass(frozen=True, slots=True)
class UndeliveredPage:
    """Which undelivered letters to list."""

    target: str | None
    after: tuple[str, UUID, datetime] | None
    size: int


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Which blocked keys of a queue to list."""

    queue: str
    after: str | None
    size: int


def redrive_order(request: pb.RedriveJobsRequest) -> tuple[RedriveOrder, RedrivePlace]:
    """What is to be redriven, and where its next step begins."""
    queue = check_queue_name(request.queue)
    destination = check_queue_name(request.destination, "destination") if request.destination else None
    if destination == queue:
        raise broken("destination", f"must be another queue than {queue!r} itself")
    if not (math.isfinite(request.rate) and 0 <= request.rate <= limits.REDRIVE_RATE_MAX):
        raise broken("rate", f"must be 0 to {limits.REDRIVE_RATE_MAX:,} jobs a second; got {request.rate:g}")
    chosen = request.filter
    order = RedriveOrder(
        queue,
        destination,
        RedriveFilter(
            check_queue_name(chosen.origin_queue, "filter.origin_queue") if chosen.origin_queue else None,
            plain_text(chosen.error_type, "filter.error_type", limits.ERROR_TYPE) or None,
            _moment(chosen, "failed_after"),
            _moment(chosen, "failed_before"),
        ),
        request.finished,
        whole(request.limit, "limit", 0, 2**31 - 1),
        request.rate,
        request.dry_run,
    )
    return order, _place(request.page_token) if request.page_token else RedrivePlace()


def _moment(chosen: pb.RedriveFilter, name: str) -> datetime | None:
    if not chosen.HasField(name):  # type: ignore[arg-type]
        return None
    return timestamp(getattr(chosen, name), f"filter.{name}", limits.START_AHEAD_MAX)


def _place(token: str) -> RedrivePlace:
    found = _PLACE.fullmatch(token)
    if found is None:
        raise _no_token()
    kind, began, redriven, after = found.groups()
    return RedrivePlace(_time(began), int(redriven), kind == "f", None if after is None else UUID(after))


def place_token(place: RedrivePlace | None) -> str:
    """A place as clients carry it to the next call."""
    if place is None:
        return ""
    assert place.began is not None
    after = "" if place.after is None else place.after.hex
    return f"{'f' if place.finished else 'w'}.{_number(place.began)}.{place.redriven}.{after}"


def undelivered_page(request: pb.ListUndeliveredRequest) -> UndeliveredPage:
    """Which undelivered letters to list."""
    after = None
    if request.page_token:
        found = _AFTER.fullmatch(request.page_token)
        if found is None:
            raise _no_token()
        after = found[1], uuid(found[2], "page_token"), _time(found[3])
    target = check_queue_name(request.dead_letter, "dead_letter") if request.dead_letter else None
    return UndeliveredPage(target, after, _size(request.page_size))


def after_token(queue: str, job_id: UUID, failed_at: datetime) -> str:
    """A letter as clients carry it to the next call."""
    return f"{queue}/{job_id}/{_number(failed_at)}"


def key_page(request: pb.ListBlockedKeysRequest) -> KeyPage:
    """Which blocked keys to list."""
    after = plain_text(request.page_token, "page_token", limits.LABEL) or None
    return KeyPage(check_queue_name(request.queue), after, _size(request.page_size))


def unblocking(request: pb.UnblockKeysRequest) -> tuple[str, list[str], Unblock]:
    """The keys that are to go on, and what becomes of the jobs that hold them up."""
    queue = check_queue_name(request.queue)
    count(len(request.keys), "keys", 1, _PER_PAGE_MAX)
    keys = [plain_text(key, f"keys[{index}]", limits.LABEL) for index, key in enumerate(request.keys)]
    try:
        action = Unblock(request.action)
    except ValueError:
        rule = f"must be UNBLOCK_ACTION_SKIP, _RETRY or _DEAD_LETTER; got {request.action}"
        raise broken("action", rule) from None
    return queue, keys, action


def _size(asked: int) -> int:
    return whole(asked, "page_size", 0, _PER_PAGE_MAX) or _PER_PAGE


def _number(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _time(number: str) -> datetime:
    try:
        return _EPOCH + int(number) * _MICROSECOND
    except OverflowError:
        raise _no_token() from None


def _no_token() -> Exception:
    return broken("page_token", "is none that this service can have made: pass it on as received")
