"""Plain functions for scripts and synchronous programs: publish a job, look at one.

They need no event loop, and may be called from any thread. Each call opens a connection of its own; a program that
publishes often uses `Client`.
"""

# ruff: noqa: A002 - `id` is what everybody calls it

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import grpc

from jobwire.connection import Request, Response, channel_options
from jobwire.convert import job_info_from, published_from, spec_from
from jobwire.errors import error_from_rpc
from jobwire.model import JobInfo, JobOptions, NewJob, Published
from jobwire.retrying import Attempts
from jobwire.v1.queue_service_pb2 import GetJobRequest, PublishRequest
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from jobwire.wire import Seconds, in_seconds


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
    timeout: Seconds = 10.0,
) -> Published:
    """Store one job at `target` (host and port); when this returns, it is on disk. See `Client.publish`."""
    job = NewJob(data, id, priority, start_after, start_in, headers, options)
    request = PublishRequest(queue=queue, jobs=[spec_from(job)])
    with _channel(target, tls) as channel:
        response = _call(QueueServiceStub(channel).Publish, request, target, in_seconds(timeout))
    return published_from(response.results[0])


def get_job(
    target: str,
    job_id: str,
    queue: str = "",
    *,
    tls: grpc.ChannelCredentials | None = None,
    timeout: Seconds = 10.0,
) -> JobInfo:
    """Return a job as it is now; raises NotFound. Without a queue, all are searched. See `Client.get_job`."""
    request = GetJobRequest(queue=queue, job_id=job_id)
    with _channel(target, tls) as channel:
        response = _call(QueueServiceStub(channel).GetJob, request, target, in_seconds(timeout))
    return job_info_from(response.job)


def _channel(target: str, tls: grpc.ChannelCredentials | None) -> grpc.Channel:
    options = channel_options()
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, tls, options=options)


def _call(
    method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, target: str, timeout: float
) -> Response:
    attempts = Attempts(timeout)
    while True:
        try:
            return method(request, timeout=attempts.timeout())
        except grpc.RpcError as failure:
            error = error_from_rpc(failure, target)
        time.sleep(attempts.pause_after(error))
