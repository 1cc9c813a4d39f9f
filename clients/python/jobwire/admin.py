"""What an operator does: AdminService with plain values in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from jobwire.connection import Connection
from jobwire.convert import cancelled_from, job_info_from, options_message, queue_info_from, state_number
from jobwire.model import Cancelled, JobInfo, JobOptions, JobState, QueueInfo
from jobwire.schedules import ScheduleCalls
from jobwire.sessions import SessionCalls
from jobwire.v1.admin_service_pb2 import (
    CancelJobsRequest,
    CreateQueueRequest,
    GetQueueRequest,
    ListJobsRequest,
    ListQueuesRequest,
    Queue,
    UpdateQueueRequest,
)
from jobwire.wire import MAX_CALL_ITEMS


class Admin(ScheduleCalls, SessionCalls):
    """The calls of AdminService; `client.admin` is one. Every method raises JobwireError."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

    async def create_queue(
        self,
        name: str,
        options: JobOptions | None = None,
        *,
        max_data_bytes: int | None = None,
        max_depth: int | None = None,
    ) -> QueueInfo:
        """Make sure that a queue exists. One that does is returned as it is, with `created` False.

        Args:
            name: 1 to 63 letters, digits, `_` or `-`.
            options: defaults for its jobs.
            max_data_bytes: the largest payload and output: 1 to 524288, default 65536.
            max_depth: how many of its jobs may wait; 0, the default: any number. More are refused with QueueFull.
        """
        request = CreateQueueRequest(queue=_queue(name, options, max_data_bytes, max_depth))
        response = await self._connection.call(self._connection.admin.CreateQueue, request, self._timeout)
        return queue_info_from(response.queue, created=response.created)

    async def get_queue(self, name: str) -> QueueInfo:
        """Return a queue with the number of its live jobs. Raises NotFound."""
        request = GetQueueRequest(name=name)
        response = await self._connection.call(self._connection.admin.GetQueue, request, self._timeout)
        return queue_info_from(response.queue)

    async def list_queues(self) -> list[QueueInfo]:
        """Return all queues by name, with the number of their live jobs."""
        queues: list[QueueInfo] = []
        request = ListQueuesRequest(page_size=1000)
        while True:
            response = await self._connection.call(self._connection.admin.ListQueues, request, self._timeout)
            queues += map(queue_info_from, response.queues)
            if not response.next_page_token:
                return queues
            request.page_token = response.next_page_token

    async def update_queue(
        self,
        name: str,
        options: JobOptions | None = None,
        *,
        max_data_bytes: int | None = None,
        max_depth: int | None = None,
    ) -> QueueInfo:
        """Change defaults for jobs published from now on; what is None stays. Raises NotFound."""
        request = UpdateQueueRequest(queue=_queue(name, options, max_data_bytes, max_depth))
        response = await self._connection.call(self._connection.admin.UpdateQueue, request, self._timeout)
        return queue_info_from(response.queue)

    async def list_jobs(
        self, queue: str, states: Iterable[JobState | str] = (), *, limit: int | None = None, page_size: int = 50
    ) -> AsyncIterator[JobInfo]:
        """Iterate over the jobs of a queue, newest first, fetching page by page.

        Args:
            queue: the queue. Raises NotFound if it does not exist.
            states: only jobs in these states, such as `JobState.FAILED` or `"failed"`; none means all.
            limit: end after so many jobs; None goes on to the last.
            page_size: how many jobs one call fetches, 1 to 500.
        """
        request = ListJobsRequest(queue=queue, states=[state_number(state) for state in states])
        left = limit
        while left is None or left > 0:
            request.page_size = page_size if left is None else min(page_size, left)
            response = await self._connection.call(self._connection.admin.ListJobs, request, self._timeout)
            for job in response.jobs:
                yield job_info_from(job)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token
            if left is not None:
                left -= len(response.jobs)

    async def cancel_jobs(self, queue: str, job_ids: Iterable[str]) -> list[Cancelled]:
        """Cancel jobs by id; one result for each, in order.

        A waiting job is cancelled at once. The worker of a running one is told; a result that comes first wins.
        """
        ids = list(job_ids)
        results: list[Cancelled] = []
        for start in range(0, len(ids), MAX_CALL_ITEMS):
            request = CancelJobsRequest(queue=queue, job_ids=ids[start : start + MAX_CALL_ITEMS])
            response = await self._connection.call(self._connection.admin.CancelJobs, request, self._timeout)
            results += map(cancelled_from, response.results)
        return results


def _queue(name: str, options: JobOptions | None, max_data_bytes: int | None, max_depth: int | None) -> Queue:
    return Queue(
        name=name,
        options=None if options is None else options_message(options),
        max_data_bytes=max_data_bytes,
        max_depth=max_depth,
    )
