"""Requests of AdminService, checked and turned into the domain's values.

A page token is the key of the last row of the page before; to clients it is opaque.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from jobwire.v1 import admin_service_pb2
from jobwire_server.api.fields import (
    broken,
    count,
    duration_ms,
    optional_duration_ms,
    optional_whole,
    path,
    plain_text,
    uuid,
    whole,
)
from jobwire_server.api.requests import options_patch
from jobwire_server.domain import limits
from jobwire_server.domain.queues import JobOptions, Policy, Queue, QueueLimits, QueuePatch, Rate, check_queue_name

_QUEUES_PER_PAGE, _QUEUES_PER_PAGE_MAX = 100, 1_000
_IDS_PER_CANCEL = 1_000


@dataclass(frozen=True, slots=True)
class QueuePage:
    """Which queues to list: up to `size`, by name, after `after`."""

    after: str | None
    size: int


def queue_patch(message: admin_service_pb2.Queue) -> tuple[str, QueuePatch]:
    """A queue's name and what is said of it."""
    name = check_queue_name(message.name, "queue.name")
    max_data_bytes = optional_whole(message, "max_data_bytes", "queue", 1, limits.DATA_BYTES_MAX)
    max_depth = optional_whole(message, "max_depth", "queue", 0, limits.DEPTH_MAX)
    patch = QueuePatch(
        options_patch(message.options, "queue.options"),
        max_data_bytes,
        max_depth,
        policy=_policy(message.policy) if message.policy else None,
        limits=_limits(message.limits, "queue.limits") if message.HasField("limits") else None,
        fair=message.fair if message.HasField("fair") else None,
        waiting_ms=optional_duration_ms(message, "waiting_retention", "queue", 0, limits.WAITING_MAX),
    )
    return name, patch


def _policy(number: int) -> Policy:
    try:
        return Policy(number - 1)
    except ValueError:
        raise broken("queue.policy", f"is not known: {number}") from None


def _limits(message: admin_service_pb2.QueueLimits, at: str) -> QueueLimits:
    count(len(message.tier_max_active), path(at, "tier_max_active"), 0, limits.TIERS)
    for tier, most in message.tier_max_active.items():
        if not tier:
            raise broken(
                path(at, "tier_max_active['']"), "must be set: 1 to 200 characters; a group without a tier has none"
            )
        plain_text(tier, path(at, f"tier_max_active[{tier[:40]!r}]"), limits.LABEL)
        _at_least_one(most, path(at, f"tier_max_active[{tier[:40]!r}]"))
    return QueueLimits(
        max_active=_at_least_one(message.max_active, path(at, "max_active"))
        if message.HasField("max_active")
        else None,
        rate=_rate(message.rate, path(at, "rate")) if message.HasField("rate") else None,
        group_max_active=_at_least_one(message.group_max_active, path(at, "group_max_active"))
        if message.HasField("group_max_active")
        else None,
        tier_max_active=dict(message.tier_max_active),
        group_rate=_rate(message.group_rate, path(at, "group_rate")) if message.HasField("group_rate") else None,
    )


def _at_least_one(most: int, at: str) -> int:
    if most < 1:
        raise broken(at, f"must be 1 to {limits.ACTIVE_MAX:,}; got {most:,}; to have nothing run, pause the queue")
    return whole(most, at, 1, limits.ACTIVE_MAX)


def _rate(message: admin_service_pb2.Rate, at: str) -> Rate:
    if message.starts < 1:
        rule = (
            f"must be 1 to {limits.RATE_STARTS_MAX:,}; got {message.starts:,}; to have nothing start, pause the queue"
        )
        raise broken(path(at, "starts"), rule)
    starts = whole(message.starts, path(at, "starts"), 1, limits.RATE_STARTS_MAX)
    return Rate(starts, duration_ms(message.period, path(at, "period"), limits.RATE_PERIOD_MIN, limits.RATE_PERIOD_MAX))


def new_queue(message: admin_service_pb2.Queue) -> Queue:
    """A queue to be created, defaults filled in."""
    name, patch = queue_patch(message)
    return patch.over(Queue(name, JobOptions()))


def queue_page(request: admin_service_pb2.ListQueuesRequest) -> QueuePage:
    """Which queues to list."""
    size = whole(request.page_size, "page_size", 0, _QUEUES_PER_PAGE_MAX) or _QUEUES_PER_PAGE
    return QueuePage(check_queue_name(request.page_token, "page_token") if request.page_token else None, size)


def cancelled_ids(request: admin_service_pb2.CancelJobsRequest) -> list[UUID]:
    """The jobs of a CancelJobs call, in its order."""
    count(len(request.job_ids), "job_ids", 1, _IDS_PER_CANCEL)
    return [uuid(text, f"job_ids[{index}]") for index, text in enumerate(request.job_ids)]
