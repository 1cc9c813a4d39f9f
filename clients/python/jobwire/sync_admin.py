"""What an operator does with jobs, for scripts and synchronous programs: `jobwire.sync.Client.admin`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, TypeVar

from jobwire import operations
from jobwire.model import JobInfo, JobOptions, JobState
from jobwire.operations import UNCHANGED, Action, Changes, JobChange, JobFilter, PurgeScope, Updated, WhichJobs
from jobwire.sync_queues import QueueCalls
from jobwire.wire import Seconds

Result = TypeVar("Result")


class Admin(QueueCalls):
    """As `jobwire.Admin`, whose methods say what each does; every method raises JobwireError."""

    def __init__(self, make: Callable[[operations.Step], Any]) -> None:
        self._make = make

    def list_jobs(
        self,
        queue: str = "",
        states: Iterable[JobState | str] = (),
        *,
        where: JobFilter | None = None,
        limit: int | None = None,
        page_size: int = 50,
    ) -> Iterator[JobInfo]:
        """Iterate over jobs, by queue and newest first, fetching page by page."""
        steps = operations.list_jobs(queue, states, where, limit, page_size)
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(step, operations.Step):
                answer = self._make(step)
            else:
                yield from step

    def change_jobs(  # noqa: PLR0913  (it may be said in two ways which jobs, and how many)
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
        """Cancel, retry, resume, delete, release, move, run or erase jobs: those named, or all that match."""
        return self._drive(
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

    def update_jobs(  # noqa: PLR0913  (a job has as many sides)
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
        """Change payload, priority, time or options of waiting jobs, by id or key."""
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
        return self._drive(operations.update_jobs(request))

    def purge_queue(
        self,
        queue: str,
        scope: PurgeScope | str,
        *,
        dry_run: bool = False,
        on_progress: operations.OnProgress | None = None,
    ) -> Changes:
        """Remove all waiting jobs of a queue, all finished ones, or both, for good."""
        return self._drive(operations.purge_queue(queue, scope, dry_run=dry_run, on_progress=on_progress))

    def delete_queue(self, name: str, *, force: bool = False, on_progress: operations.OnProgress | None = None) -> int:
        """Delete a queue with its finished jobs; return how many jobs went with it."""
        return self._drive(operations.delete_queue(name, force=force, on_progress=on_progress))

    def list_actions(self, queue: str = "", actor: str = "", *, limit: int = 50) -> list[Action]:
        """Return what operators did, newest first."""
        return self._drive(operations.list_actions(queue, actor, limit))

    def _drive(self, steps: operations.Steps[Result]) -> Result:
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result
            answer = self._make(step)
