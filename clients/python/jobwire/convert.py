"""Between protobuf messages and the values of `model`: one function for each, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from jobwire.errors import InvalidArgument
from jobwire.model import (
    Cancelled,
    CancelStatus,
    JobError,
    JobInfo,
    JobOptions,
    JobState,
    NewJob,
    NotCreatedReason,
    Progress,
    Published,
    QueueCounts,
    QueueInfo,
)
from jobwire.v1 import admin_service_pb2, job_pb2, queue_service_pb2
from jobwire.wire import (
    TooLargeError,
    from_duration,
    from_json,
    from_timestamp,
    new_job_id,
    to_duration,
    to_json,
    to_timestamp,
)

_STATES = {value: JobState(name.removeprefix("JOB_STATE_").lower()) for name, value in job_pb2.JobState.items()}
_STATE_NUMBERS = {state: number for number, state in _STATES.items()}
_CANCEL_STATUSES = {
    value: CancelStatus(name.removeprefix("CANCEL_STATUS_").lower())
    for name, value in admin_service_pb2.CancelStatus.items()
}
_NOT_CREATED = {
    queue_service_pb2.NOT_CREATED_REASON_UNSPECIFIED: NotCreatedReason.NONE,
    queue_service_pb2.NOT_CREATED_REASON_DUPLICATE_ID: NotCreatedReason.DUPLICATE_ID,
}


def spec_from(job: NewJob) -> queue_service_pb2.JobSpec:
    """A job to be published; raises as `write_spec`."""
    spec = queue_service_pb2.JobSpec()
    write_spec(spec, job)
    return spec


def write_spec(spec: queue_service_pb2.JobSpec, job: NewJob) -> None:
    """Say what is to be published. Raises InvalidArgument for what cannot travel; the other rules are the server's."""
    if job.start_after is not None and job.start_in is not None:
        raise InvalidArgument("start_after and start_in exclude each other: give one", reason="INVALID_ARGUMENT")
    try:
        spec.id = job.id or new_job_id()
        spec.data = to_json(job.data)
        # Most jobs say no more than that, and nothing is paid for what they do not say.
        if job.priority != 0:
            spec.priority = job.priority
        if job.start_after is not None:
            spec.start_after.CopyFrom(to_timestamp(job.start_after))
        if job.start_in is not None:
            spec.start_in.CopyFrom(to_duration(job.start_in))
        if job.headers:
            spec.headers.update(_checked_headers(job.headers))
        if job.options is not None:
            spec.options.CopyFrom(options_message(job.options))
    except TooLargeError as error:
        raise InvalidArgument(f"data: {error}", reason="DATA_TOO_LARGE") from error
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"job {job.id}: {error}", reason="INVALID_ARGUMENT") from error


def _checked_headers(headers: Mapping[Any, Any]) -> Mapping[str, str]:
    """Protobuf's own words for headers that are no strings help nobody."""
    for name, value in headers.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(f"headers are strings, not {name!r}: {value!r}")
    return headers


def published_from(result: queue_service_pb2.PublishResult) -> Published:
    """What became of one job of a Publish call."""
    if result.created:
        return Published(result.job_id, created=True)
    return Published(
        job_id=result.job_id,
        created=result.created,
        reason=_NOT_CREATED.get(result.reason, NotCreatedReason.OTHER),
        met_job_id=result.met_job_id,
        data_differs=result.data_differs,
    )


def options_message(options: JobOptions) -> job_pb2.JobOptions:
    """The rules of a job or queue, as they travel."""

    def duration(span: float | None) -> Duration | None:
        return None if span is None else to_duration(span)

    return job_pb2.JobOptions(
        retry_limit=options.retry_limit,
        retry_delay=duration(options.retry_delay),
        retry_backoff=options.retry_backoff,
        retry_delay_max=duration(options.retry_delay_max),
        expire_in=duration(options.expire_in),
        retention=duration(options.retention),
    )


def options_from(message: job_pb2.JobOptions) -> JobOptions:
    """The rules of a job or queue."""
    return JobOptions(
        retry_limit=message.retry_limit if message.HasField("retry_limit") else None,
        retry_delay=from_duration(message.retry_delay) if message.HasField("retry_delay") else None,
        retry_backoff=message.retry_backoff if message.HasField("retry_backoff") else None,
        retry_delay_max=from_duration(message.retry_delay_max) if message.HasField("retry_delay_max") else None,
        expire_in=from_duration(message.expire_in) if message.HasField("expire_in") else None,
        retention=from_duration(message.retention) if message.HasField("retention") else None,
    )


def progress_message(progress: Progress, checkpoint: str | None) -> job_pb2.Progress:
    """Progress, as it travels."""
    return job_pb2.Progress(fraction=progress.fraction, note=progress.note, checkpoint=checkpoint)


def progress_from(message: job_pb2.Progress) -> Progress:
    """What was said of the progress."""
    return Progress(message.fraction if message.HasField("fraction") else None, message.note)


def state_from(number: job_pb2.JobState.ValueType) -> JobState:
    """A state, also one that is newer than this client."""
    return _STATES.get(number, JobState.UNSPECIFIED)


def state_number(state: JobState | str) -> job_pb2.JobState.ValueType:
    """A state as it travels; raises ValueError for a word that is no state."""
    return _STATE_NUMBERS[JobState(state)]


def job_info_from(job: job_pb2.Job) -> JobInfo:
    """A job."""
    return JobInfo(
        queue=job.queue,
        id=job.id,
        state=state_from(job.state),
        data=from_json(job.data),
        headers=dict(job.headers),
        priority=job.priority,
        options=options_from(job.options),
        attempt=job.attempt,
        retry_count=job.retry_count,
        loss_count=job.loss_count,
        release_count=job.release_count,
        progress=progress_from(job.progress) if job.HasField("progress") else None,
        output=from_json(job.output),
        errors=tuple(_job_error_from(error) for error in job.errors),
        created_at=from_timestamp(job.create_time),
        start_after=from_timestamp(job.start_after),
        started_at=from_timestamp(job.start_time) if job.HasField("start_time") else None,
        finished_at=from_timestamp(job.finish_time) if job.HasField("finish_time") else None,
        worker=job.worker,
        session_id=job.session_id,
        cancel_requested=job.cancel_requested,
        revision=job.revision,
        checkpoint=from_json(job.checkpoint),
    )


def _job_error_from(error: job_pb2.JobError) -> JobError:
    return JobError(
        attempt=error.attempt,
        time=from_timestamp(error.time),
        type=error.type,
        message=error.message,
        trace=error.trace,
        worker=error.worker,
    )


def queue_info_from(queue: admin_service_pb2.Queue, *, created: bool = False) -> QueueInfo:
    """A queue; `created` is whether the call made it."""
    return QueueInfo(
        name=queue.name,
        options=options_from(queue.options),
        max_data_bytes=queue.max_data_bytes,
        max_depth=queue.max_depth,
        created_at=from_timestamp(queue.create_time),
        updated_at=from_timestamp(queue.update_time),
        counts=QueueCounts(queue.counts.ready, queue.counts.scheduled, queue.counts.active)
        if queue.HasField("counts")
        else None,
        created=created,
    )


def cancelled_from(result: admin_service_pb2.CancelResult) -> Cancelled:
    """What became of one job of a CancelJobs call."""
    return Cancelled(result.job_id, _CANCEL_STATUSES.get(result.status, CancelStatus.UNSPECIFIED))
