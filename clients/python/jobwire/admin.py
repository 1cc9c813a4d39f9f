"""What an operator does from an event loop: AdminService with plain values in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any, TypeVar, Unpack

from jobwire import operations
from jobwire.connection import Connection
from jobwire.convert import cancelled_from, queue_info_from, queue_message
from jobwire.dead_letters import DeadLetterCalls
from jobwire.limits import QueueSettings
from jobwire.model import Cancelled, JobInfo, JobOptions, JobState, QueueInfo
from jobwire.operations import UNCHANGED, Action, Changes, JobChange, JobFilter, PurgeScope, Updated, WhichJobs
from jobwire.schedules import ScheduleCalls
from jobwire.sessions import SessionCalls
from jobwire.v1.admin_service_pb2 import (
    CancelJobsRequest,
    CreateQueueRequest,
    GetQueueRequest,
    ListQueuesRequest,
    PauseQueueRequest,
    ResumeQueueRequest,
    UpdateQueueRequest,
)
from jobwire.wire import MAX_CALL_ITEMS, Seconds

Result = TypeVar("Result")


class Admin(DeadLetterCalls, ScheduleCalls, SessionCalls):
    """The calls of AdminService; `client.admin` is one. Every method raises JobwireError."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

    async def create_queue(
        self, name: str, options: JobOptions | None = None, **settings: Unpack[QueueSettings]
    ) -> QueueInfo:
        """Make sure that a queue exists. One that does is returned as it is, with `created` False.

        Args:
            name: 1 to 63 letters, digits, `_` or `-`.
            options: defaults for its jobs.
            settings: see QueueSettings.
        """
        request = CreateQueueRequest(queue=queue_message(name, options, **settings))
        response = await self._connection.call(self._connection.admin.CreateQueue, request, self._timeout)
        return queue_info_from(response.queue, created=response.created)

    async def get_queue(self, name: str) -> QueueInfo:
        """Return a queue with the number of its jobs. Raises NotFound."""
        request = GetQueueRequest(name=name)
        response = await self._connection.call(self._connection.admin.GetQueue, request, self._timeout)
        return queue_info_from(response.queue)

    async def list_queues(self) -> list[QueueInfo]:
        """Return all queues by name, with the number of their jobs."""
        queues: list[QueueInfo] = []
        request = ListQueuesRequest(page_size=1000)
        while True:
            response = await self._connection.call(self._connection.admin.ListQueues, request, self._timeout)
            queues += map(queue_info_from, response.queues)
            if not response.next_page_token:
                return queues
            request.page_token = response.next_page_token

    async def update_queue(
        self, name: str, options: JobOptions | None = None, **settings: Unpack[QueueSettings]
    ) -> QueueInfo:
        """Change a queue; what is None stays. Raises NotFound, QueueBusy.

        Options hold for jobs published from now on; policy, limits and fairness for those that wait, too.
        What runs goes on.
        """
        request = UpdateQueueRequest(queue=queue_message(name, options, **settings))
        response = await self._connection.call(self._connection.admin.UpdateQueue, request, self._timeout)
        return queue_info_from(response.queue)

    async def pause_queue(self, name: str) -> QueueInfo:
        """Have no job of a queue start any more; what runs goes on, and publishing does too. Raises NotFound."""
        request = PauseQueueRequest(name=name)
        response = await self._connection.call(self._connection.admin.PauseQueue, request, self._timeout)
        return queue_info_from(response.queue)

    async def resume_queue(self, name: str) -> QueueInfo:
        """End a pause. Raises NotFound."""
        request = ResumeQueueRequest(name=name)
        response = await self._connection.call(self._connection.admin.ResumeQueue, request, self._timeout)
        return queue_info_from(response.queue)

    async def list_jobs(
        self,
        queue: str = "",
        states: Iterable[JobState | str] = (),
        *,
        where: JobFilter | None = None,
        limit: int | None = None,
        page_size: int = 50,
    ) -> AsyncIterator[JobInfo]:
        """Iterate over jobs, by queue and newest first, fetching page by page.

        Args:
            queue: the queue; empty: all of them. Raises NotFound if it does not exist.
            states: only jobs in these states, such as `JobState.FAILED` or `"failed"`; none means all.
            where: what else holds for them.
            limit: end after so many jobs; None goes on to the last.
            page_size: how many jobs one call fetches, 1 to 500.
        """
        steps = operations.list_jobs(queue, states, where, limit, page_size)
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return
            if isinstance(step, operations.Step):
                answer = await self._make(step)
                continue
            answer = None
            for job in step:
                yield job

    async def change_jobs(  # noqa: PLR0913  (it may be said in two ways which jobs, and how many)
        self,
        change: JobChange | str,
        queue: str = "",
        *,
        ids: Iterable[str] | None = None,
        where: JobFilter | None = None,
        destination: str = "",
        dry_run: bool = False,
        confirmation: str = "",
        limit: int | None = None,
        on_progress: operations.OnProgress | None = None,
    ) -> Changes:
        """Cancel, retry, resume, delete, release, move, run or erase jobs: those named, or all that match.

        By filter it takes two steps: a `dry_run`, which changes nothing and returns what matches with a `confirmation`;
        and the same call with that. No more jobs are changed than were counted. A `limit` stands in for it. Should a
        call fail half way, what was done before stays done; repeating the operation completes it.

        Args:
            change: what is to become of them.
            queue: their queue; with `where` it may be empty, for all queues.
            ids: the jobs, or
            where: what holds for them; `JobFilter()` for all.
            destination: where to, for `move`.
            dry_run: only say what would be changed.
            confirmation: that of a dry run.
            limit: change at most so many.
            on_progress: called after each call with how many matched and how many were changed so far.

        Raises:
            FailedPrecondition: neither confirmation nor limit.
            NotFound: there is no such queue.
        """
        return await self._drive(
            operations.change_jobs(
                change,
                queue,
                ids=ids,
                where=where,
                destination=destination,
                dry_run=dry_run,
                confirmation=confirmation,
                limit=limit,
                on_progress=on_progress,
            )
        )

    async def update_jobs(  # noqa: PLR0913  (a job has as many sides)
        self,
        queue: str,
        *,
        job_id: str = "",
        key: str = "",
        which: WhichJobs | str = WhichJobs.NEWEST,
        data: Any = UNCHANGED,
        priority: int | None = None,
        start_after: datetime | None = None,
        start_in: Seconds | None = None,
        options: JobOptions | None = None,
        upsert: bool = False,
    ) -> Updated:
        """Change payload, priority, time or options of waiting jobs, by id or key; what is not given stays.

        A job that a worker has taken meanwhile is not changed. With `upsert` a job is stored if none waits. Raises
        NotFound if nothing was changed and nothing stored.
        """
        request = operations.update_request(
            queue,
            job_id=job_id,
            key=key,
            which=which,
            data=data,
            priority=priority,
            start_after=start_after,
            start_in=start_in,
            options=options,
            upsert=upsert,
        )
        return await self._drive(operations.update_jobs(request))

    async def purge_queue(
        self,
        queue: str,
        scope: PurgeScope | str,
        *,
        dry_run: bool = False,
        on_progress: operations.OnProgress | None = None,
    ) -> Changes:
        """Remove all waiting jobs of a queue, all finished ones, or both, for good. Running ones stay."""
        return await self._drive(operations.purge_queue(queue, scope, dry_run=dry_run, on_progress=on_progress))

    async def delete_queue(
        self, name: str, *, force: bool = False, on_progress: operations.OnProgress | None = None
    ) -> int:
        """Delete a queue with its finished jobs; return how many jobs went with it.

        Raises FailedPrecondition while it has live jobs (`reason` QUEUE_NOT_EMPTY) or something refers to it
        (QUEUE_REFERENCED), unless forced: then everything in it is deleted, what runs included.
        """
        return await self._drive(operations.delete_queue(name, force=force, on_progress=on_progress))

    async def list_actions(self, queue: str = "", actor: str = "", *, limit: int = 50) -> list[Action]:
        """Return what operators did, newest first; it is kept for 90 days."""
        return await self._drive(operations.list_actions(queue, actor, limit))

    async def _drive(self, steps: operations.Steps[Result]) -> Result:
        """Make the calls of an operation."""
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result
            answer = await self._make(step)

    async def _make(self, step: operations.Step) -> Any:
        method = getattr(self._connection.admin, step.method)
        if step.repeatable:
            return await self._connection.call(method, step.request, self._timeout)
        return await self._connection.attempt(method, step.request, max(self._timeout, operations.WORK_SECONDS))

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
