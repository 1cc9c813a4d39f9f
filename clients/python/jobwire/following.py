"""Follows one job to its end by long polls, across server restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jobwire.connection import Connection
from jobwire.convert import job_info_from
from jobwire.errors import DeadlineExceeded, JobwireError
from jobwire.model import JobInfo
from jobwire.retrying import Backoff, worth_repeating
from jobwire.v1.queue_service_pb2 import GetJobRequest
from jobwire.wire import to_duration

_LONG_POLL = 30.0
"""How long one GetJob waits, in seconds; proxies rarely cut a call that is this short."""

_ANSWER_TIME = 10.0
"""How much longer than its wait a long poll may take."""

_QUICK = 1.0
"""An unchanged job that comes back faster than this means that waits end early, as they do when the server drains."""


class Following:
    """One job, looked at until it is finished."""

    def __init__(
        self, connection: Connection, job_id: str, queue: str, on_change: Callable[[JobInfo], None] | None
    ) -> None:
        self._connection = connection
        self._job_id = job_id
        self._queue = queue
        self._on_change = on_change
        self._known: JobInfo | None = None
        self._last_error: JobwireError | None = None

    async def to_the_end(self, within: float | None) -> JobInfo:
        """Return the finished job; raises DeadlineExceeded after `within` seconds."""
        try:
            async with asyncio.timeout(within):
                return await self._finished()
        except TimeoutError:
            seen = f"it was {self._known.state} when last seen" if self._known else "it was never seen"
            trouble = f"; the last attempt failed: {self._last_error}" if self._last_error else ""
            raise DeadlineExceeded(f"job {self._job_id} did not finish within {within:g} s, {seen}{trouble}") from None

    async def _finished(self) -> JobInfo:
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        while True:
            asked = loop.time()
            try:
                job = await self._poll()
            except JobwireError as error:
                if not worth_repeating(error):
                    raise
                self._last_error = error
                await asyncio.sleep(backoff.pause(error.retry_after))
                continue
            self._last_error = None
            changed = self._known is None or self._known.revision != job.revision
            self._known = job
            if changed and self._on_change is not None:
                self._on_change(job)
            if job.finished:
                return job
            if changed or loop.time() - asked >= _QUICK:
                backoff.reset()
            else:
                await asyncio.sleep(backoff.pause())

    async def _poll(self) -> JobInfo:
        """Ask once: the first time for the job as it is, then for the next change that matters."""
        wait = _LONG_POLL if self._known else 0.0
        request = GetJobRequest(
            queue=self._queue,
            job_id=self._job_id,
            wait=to_duration(wait),
            known_revision=self._known.revision if self._known else "",
            until_finished=self._on_change is None,
        )
        response = await self._connection.attempt(self._connection.queue.GetJob, request, wait + _ANSWER_TIME)
        return job_info_from(response.job)
