"""What an operator does with queues, for scripts and synchronous programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

from jobwire.convert import queue_info_from, queue_message
from jobwire.limits import QueueSettings
from jobwire.model import JobOptions, QueueInfo
from jobwire.operations import Step
from jobwire.v1.admin_service_pb2 import (
    CreateQueueRequest,
    GetQueueRequest,
    PauseQueueRequest,
    ResumeQueueRequest,
    UpdateQueueRequest,
)


class QueueCalls:
    """The part of `jobwire.sync.Client.admin` that concerns queues; see `jobwire.Admin`."""

    _make: Callable[[Step], Any]

    def create_queue(
        self, name: str, options: JobOptions | None = None, **settings: Unpack[QueueSettings]
    ) -> QueueInfo:
        """Make sure that a queue exists. One that does is returned as it is, with `created` False."""
        request = CreateQueueRequest(queue=queue_message(name, options, **settings))
        response = self._make(Step("CreateQueue", request))
        return queue_info_from(response.queue, created=response.created)

    def get_queue(self, name: str) -> QueueInfo:
        """Return a queue with the number of its live jobs. Raises NotFound."""
        return queue_info_from(self._make(Step("GetQueue", GetQueueRequest(name=name))).queue)

    def update_queue(
        self, name: str, options: JobOptions | None = None, **settings: Unpack[QueueSettings]
    ) -> QueueInfo:
        """Change a queue; what is None stays. Raises NotFound, QueueBusy."""
        request = UpdateQueueRequest(queue=queue_message(name, options, **settings))
        return queue_info_from(self._make(Step("UpdateQueue", request)).queue)

    def pause_queue(self, name: str) -> QueueInfo:
        """Have no job of a queue start any more; what runs goes on, and publishing does too. Raises NotFound."""
        return queue_info_from(self._make(Step("PauseQueue", PauseQueueRequest(name=name))).queue)

    def resume_queue(self, name: str) -> QueueInfo:
        """End a pause. Raises NotFound."""
        return queue_info_from(self._make(Step("ResumeQueue", ResumeQueueRequest(name=name))).queue)
