"""The asynchronous client: publish jobs, look at them, wait for them."""

# ruff: noqa: A002 - `id` is what everybody calls it

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from jobwire.admin import Admin
from jobwire.connection import Connection
from jobwire.convert import job_info_from, spec_from
from jobwire.credentials import Token, call_metadata
from jobwire.following import Following
from jobwire.limits import JobLabels
from jobwire.model import JobInfo, JobOptions, NewJob, Published
from jobwire.publishing import Publisher
from jobwire.v1.queue_service_pb2 import GetJobRequest
from jobwire.wire import Seconds, in_seconds


class Client:
    """Talks to Jobwire from one event loop; share one among all tasks.

    Use it as `async with Client("127.0.0.1:50051") as client:`, or call `close` at the end. The connection is made with
    the first call, and again whenever it breaks. Every method raises JobwireError.

    Args:
        target: host and port; `dns:///host:50051` spreads calls over all addresses of the name.
        tls: credentials, for example `grpc.ssl_channel_credentials()`. None: no encryption.
        token: what the server knows this caller by, or a function that returns it, asked before each call. Without TLS
            whoever sees the network can read it.
        timeout: for each call, in seconds, repetitions and pauses included.
        actor: for whom calls are made: the name in the record of what operators do. None: this program's address.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        timeout: Seconds = 10.0,
        actor: str | None = None,
    ) -> None:
        self._actor = actor
        self._target = target
        self._tls = tls
        self._token = token
        call_metadata(token, actor)  # a token that can be none is refused here, not by the first call
        self._timeout = in_seconds(timeout)
        self._opened: tuple[Connection, Publisher] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let publishes that are on their way finish, and close the connection. Closing twice is fine."""
        self._closed = True
        if self._opened is not None:
            connection, publisher = self._opened
            self._opened = None
            await publisher.close()
            await connection.close()

    @property
    def admin(self) -> Admin:
        """What an operator does: queues, lists of jobs, cancelling."""
        return Admin(self._connection, self._timeout)

    async def publish(
        self,
        queue: str,
        data: Any,
        *,
        id: str | None = None,
        priority: int = 0,
        start_after: datetime | None = None,
        start_in: Seconds | None = None,
        headers: Mapping[str, str] | None = None,
        options: JobOptions | None = None,
        **labels: Unpack[JobLabels],
    ) -> Published:
        """Store one job; when this returns, it is on disk, or `created` is False and `reason` says why it is not.

        What many tasks publish to a queue at the same time shares calls, but not fate. The arguments are those of
        NewJob. Cancelling the call does not take the job back if it was on its way.

        Raises:
            InvalidArgument: a field breaks a rule; nothing was stored.
            NotFound: the queue does not exist, and the server does not make queues by itself.
            Overloaded, QueueFull: no room for it within the timeout; nothing was stored.
            Unavailable, DeadlineExceeded: not within the timeout. The job may be stored; publishing it again with the
                same id is safe.
        """
        job = NewJob(data, id, priority, start_after, start_in, headers, options, **labels)
        return await self._publisher.publish(queue, spec_from(job))

    async def publish_many(
        self, queue: str, jobs: Iterable[NewJob], *, on_progress: Callable[[int, int], None] | None = None
    ) -> list[Published]:
        """Store many jobs of one queue in their order; the results are in that order too.

        Up to 1,000 jobs and 3 MiB travel in one call and are stored all or none. A larger list is split, and atomic
        only per call: if this raises, the calls before are stored. Repeating it with the same NewJob objects is safe,
        and completes the rest.

        Args:
            queue: the queue.
            jobs: the jobs; all are checked for what cannot travel before the first is sent.
            on_progress: called after each call with how many jobs are stored, and how many there are.

        Raises: as `publish`; the timeout is for each call.
        """
        return await self._publisher.publish_many(queue, jobs, on_progress)

    async def get_job(self, job_id: str, queue: str = "") -> JobInfo:
        """Return a job as it is now, live or finished. Without a queue, all are searched, and the newest job counts.

        Raises:
            NotFound: there is no such job, or its retention is over.
        """
        connection = self._connection
        request = GetJobRequest(queue=queue, job_id=job_id)
        response = await connection.call(connection.queue.GetJob, request, self._timeout)
        return job_info_from(response.job)

    async def wait(
        self,
        job_id: str,
        queue: str = "",
        *,
        timeout: Seconds | None = None,
        on_change: Callable[[JobInfo], None] | None = None,
    ) -> JobInfo:
        """Wait until a job is finished, and return it. How it finished is in its `state`.

        Waits by long polls and goes on by itself after the server restarts or the network fails.

        Args:
            job_id: the job.
            queue: its queue; empty searches all.
            timeout: how long to wait; None waits for ever.
            on_change: called with the job as it is found first and after each change of state, attempt or progress
                that is seen; changes in quick succession may be seen as one.

        Raises:
            DeadlineExceeded (a TimeoutError): not finished within the timeout.
            NotFound: there is no such job.
        """
        within = None if timeout is None else in_seconds(timeout)
        return await Following(self._connection, job_id, queue, on_change).to_the_end(within)

    @property
    def _connection(self) -> Connection:
        return self._open()[0]

    @property
    def _publisher(self) -> Publisher:
        return self._open()[1]

    def _open(self) -> tuple[Connection, Publisher]:
        if self._closed:
            raise RuntimeError("this Client is closed: make a new one")
        if self._opened is None:
            # Not earlier: a channel belongs to the loop that runs when it is made.
            connection = Connection(self._target, tls=self._tls, token=self._token, actor=self._actor)
            self._opened = connection, Publisher(connection, self._timeout)
        return self._opened
