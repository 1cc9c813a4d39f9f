"""Requests of AdminService, checked and turned into the domain's values.

A page token is the key of the last row of the page before; to clients it is opaque.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from jobwire.v1 import admin_service_pb2
from jobwire_server.api.fields import count, optional_whole, uuid, whole
from jobwire_server.api.requests import options_patch
from jobwire_server.domain import limits
from jobwire_server.domain.queues import JobOptions, Queue, QueuePatch, check_queue_name

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
    return name, QueuePatch(options_patch(message.options, "queue.options"), max_data_bytes, max_depth)


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
