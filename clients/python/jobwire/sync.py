"""For scripts and synchronous programs: publish jobs, look at them, operate on them. No event loop is needed.

`Client` keeps one connection, and any number of threads may share it: what they publish at the same time goes out in
few calls. `publish` and `get_job` open a connection for one call.
"""

# ruff: noqa: A002 - `id` is what everybody calls it

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from jobwire.connection import Request, Response, channel_options
from jobwire.convert import job_info_from, published_from, spec_from
from jobwire.credentials import Token, call_metadata
from jobwire.errors import error_from_rpc
from jobwire.grouping import calls
from jobwire.lanes import Lanes
from jobwire.limits import JobLabels
from jobwire.model import JobInfo, JobOptions, NewJob, Published
from jobwire.operations import WORK_SECONDS, Step
from jobwire.retrying import Attempts
from jobwire.sync_admin import Admin
from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire.v1.queue_service_pb2 import GetJobRequest
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from jobwire.wire import Seconds, in_seconds


class Client:
    """Talks to Jobwire from threads; share one among all of them.

    Use it as `with jobwire.sync.Client("127.0.0.1:50051") as client:`, or call `close` at the end. Every method raises
    JobwireError. After a fork the child makes a Client of its own.

    Args:
        target: host and port; `dns:///host:50051` spreads calls over all addresses of the name.
        tls: credentials, for example `grpc.ssl_channel_credentials()`. None: no encryption.
        token: what the server knows this caller by, or a function that returns it, asked before each call, in any
            thread. Without TLS whoever sees the network can read it.
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
        self._target = target
        self._metadata = call_metadata(token, actor)
        self._timeout = in_seconds(timeout)
        options = channel_options()
        self._channel = (
            grpc.insecure_channel(target, options=options)
            if tls is None
            else grpc.secure_channel(target, tls, options=options)
        )
        self._stub = QueueServiceStub(self._channel)
        self._admin = AdminServiceStub(self._channel)
        self._lanes = Lanes(self._stub.Publish, target, self._timeout, self._metadata)
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let publishes that are on their way finish, and close the connection. Closing twice is fine."""
        self._closed = True
        self._lanes.close()
        self._channel.close()

    def publish(
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
        """Store one job; when this returns, it is on disk.

        What many threads publish to a queue at the same time shares calls, but not fate. See `jobwire.Client.publish`.
        """
        self._check_open()
        job = NewJob(data, id, priority, start_after, start_in, headers, options, **labels)
        return self._lanes.publish(queue, spec_from(job))

    def publish_many(
        self, queue: str, jobs: Iterable[NewJob], *, on_progress: Callable[[int, int], None] | None = None
    ) -> list[Published]:
        """Store many jobs of one queue in their order. See `jobwire.Client.publish_many`."""
        self._check_open()
        requests = calls(queue, jobs)
        total = sum(len(request.jobs) for request in requests)
        published: list[Published] = []
        for request in requests:
            response = self._call(self._stub.Publish, request)
            published += map(published_from, response.results)
            if on_progress is not None:
                on_progress(len(published), total)
        return published

    def get_job(self, job_id: str, queue: str = "") -> JobInfo:
        """Return a job as it is now; raises NotFound. Without a queue, all are searched."""
        self._check_open()
        return job_info_from(self._call(self._stub.GetJob, GetJobRequest(queue=queue, job_id=job_id)).job)

    @property
    def admin(self) -> Admin:
        """What an operator does with jobs and queues: find, change, update, purge, delete."""
        return Admin(self._make)

    def _make(self, step: Step) -> Any:
        self._check_open()
        method = getattr(self._admin, step.method)
        if step.repeatable:
            return self._call(method, step.request)
        try:
            return method(step.request, timeout=max(self._timeout, WORK_SECONDS), metadata=self._metadata())
        except grpc.RpcError as failure:
            raise error_from_rpc(failure, self._target) from failure

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this Client is closed: make a new one")

    def _call(self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        attempts = Attempts(self._timeout)
        while True:
            try:
                return method(request, timeout=attempts.timeout(), metadata=self._metadata())
            except grpc.RpcError as failure:
                error = error_from_rpc(failure, self._target)
            if self._closed and error.code is grpc.StatusCode.CANCELLED:
                raise error  # by `close` in another thread, not by a server that stops
            time.sleep(attempts.pause_after(error))


def publish(  # noqa: PLR0913 - a job has as many sides
    target: str,
    queue: str,
    data: Any,
    *,
    id: str | None = None,
    priority: int = 0,
    start_after: datetime | None = None,
    start_in: Seconds | None = None,
    headers: Mapping[str, str] | None = None,
    options: JobOptions | None = None,
    tls: grpc.ChannelCredentials | None = None,
    token: Token | None = None,
    timeout: Seconds = 10.0,
    **labels: Unpack[JobLabels],
) -> Published:
    """Store one job at `target` (host and port); when this returns, it is on disk. See `Client.publish`.

    Opens a connection for this call; a program that publishes often uses a `Client`.
    """
    job = NewJob(data, id, priority, start_after, start_in, headers, options, **labels)
    with Client(target, tls=tls, token=token, timeout=timeout) as client:
        return client.publish_many(queue, [job])[0]


def get_job(
    target: str,
    job_id: str,
    queue: str = "",
    *,
    tls: grpc.ChannelCredentials | None = None,
    token: Token | None = None,
    timeout: Seconds = 10.0,
) -> JobInfo:
    """Return a job as it is now; raises NotFound. Without a queue, all are searched. See `Client.get_job`."""
    with Client(target, tls=tls, token=token, timeout=timeout) as client:
        return client.get_job(job_id, queue)
