"""Between protobuf messages and the values of `model`: one function for each, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from jobwire.errors import InvalidArgument
from jobwire.limits import Group, QueueLimits, QueuePolicy, Rate
from jobwire.model import (
    Cancelled,
    CancelStatus,
    JobError,
    JobInfo,
    JobOptions,
    JobOrigin,
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
    Seconds,
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
    value: NotCreatedReason(name.removeprefix("NOT_CREATED_REASON_").lower())
    for name, value in queue_service_pb2.NotCreatedReason.items()
    if value
}
_POLICIES = {
    value: QueuePolicy(name.removeprefix("QUEUE_POLICY_").lower())
    for name, value in admin_service_pb2.QueuePolicy.items()
}
_POLICY_NUMBERS = {policy: number for number, policy in _POLICIES.items()}


_BARE = 2
"""So many fields a job has that says no more than its id and its data."""


def spec_from(job: NewJob) -> queue_service_pb2.JobSpec:
    """A job to be published; raises as `write_spec`."""
    spec = queue_service_pb2.JobSpec()
    write_spec(spec, job)
    return spec


def write_spec(spec: queue_service_pb2.JobSpec, job: NewJob) -> None:
    """Say what is to be published. Raises InvalidArgument for what cannot travel; the other rules are the server's."""
    try:
        spec.id = job.id or new_job_id()
        spec.data = to_json(job.data)
        # Most jobs say no more than that, and nothing is paid for what they do not say.
        if len(job.__dict__) > _BARE:
            _write_terms(spec, job)
    except TooLargeError as error:
        raise InvalidArgument(f"data: {error}", reason="DATA_TOO_LARGE") from error
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"job {job.id}: {error}", reason="INVALID_ARGUMENT") from error


def _write_terms(spec: queue_service_pb2.JobSpec, job: NewJob) -> None:
    """What is said of a job beside its id and its data."""
    _only_one(start_after=job.start_after, start_in=job.start_in)
    _only_one(throttle=job.throttle, debounce=job.debounce, unique_for=job.unique_for)
    if job.priority != 0:
        spec.priority = job.priority
    if job.start_after is not None:
        spec.start_after.CopyFrom(to_timestamp(job.start_after))
    if job.headers:
        spec.headers.update(_checked_headers(job.headers))
    if job.options is not None:
        spec.options.CopyFrom(options_message(job.options))
    if job.key is not None:
        spec.key = job.key
    if job.group is not None:
        group = Group(job.group) if isinstance(job.group, str) else job.group
        spec.group.CopyFrom(job_pb2.JobGroup(id=group.id, tier=group.tier))
    for name in ("start_in", "throttle", "debounce", "unique_for"):
        if (span := getattr(job, name)) is not None:
            getattr(spec, name).CopyFrom(to_duration(span))


def _only_one(**given: object) -> None:
    """Of these the message carries one; the others would be lost in silence."""
    if sum(value is not None for value in given.values()) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other: give one")


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


def _duration(span: Seconds | None) -> Duration | None:
    return None if span is None else to_duration(span)


def options_message(options: JobOptions) -> job_pb2.JobOptions:
    """The rules of a job or queue, as they travel."""
    return job_pb2.JobOptions(
        retry_limit=options.retry_limit,
        retry_delay=_duration(options.retry_delay),
        retry_backoff=options.retry_backoff,
        retry_delay_max=_duration(options.retry_delay_max),
        expire_in=_duration(options.expire_in),
        retention=_duration(options.retention),
        dead_letter=options.dead_letter,
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
        dead_letter=message.dead_letter if message.HasField("dead_letter") else None,
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
        key=job.key,
        group=Group(job.group.id, job.group.tier) if job.HasField("group") else None,
        waits_for=job.waits_for,
        origin=origin_from(job.origin) if job.HasField("origin") else None,
    )


def origin_from(origin: job_pb2.JobOrigin) -> JobOrigin:
    """Where a job comes from."""
    return JobOrigin(
        queue=origin.queue,
        job_id=origin.job_id,
        created_at=from_timestamp(origin.create_time),
        failed_at=from_timestamp(origin.fail_time),
        attempts=origin.attempts,
        last_error=_job_error_from(origin.last_error) if origin.HasField("last_error") else None,
        first_queue=origin.first_queue,
        first_job_id=origin.first_job_id,
        redrives=origin.redrives,
    )


def _job_error_from(error: job_pb2.JobError) -> JobError:
    return JobError(
        attempt=error.attempt,
        time=from_timestamp(error.time),
        type=error.type,
        message=error.message,
        trace=error.trace,
        worker=error.worker,
        started_at=from_timestamp(error.start_time) if error.HasField("start_time") else None,
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
        counts=_counts_from(queue.counts) if queue.HasField("counts") else None,
        created=created,
        policy=_POLICIES.get(queue.policy, QueuePolicy.UNSPECIFIED),
        limits=_limits_from(queue.limits),
        fair=queue.fair,
        waiting_retention=from_duration(queue.waiting_retention) if queue.HasField("waiting_retention") else None,
        paused=queue.paused,
    )


def _counts_from(counts: admin_service_pb2.QueueCounts) -> QueueCounts:
    return QueueCounts(
        ready=counts.ready,
        scheduled=counts.scheduled,
        active=counts.active,
        blocked=counts.blocked,
        failed=counts.failed,
        exact_up_to=counts.exact_up_to,
        oldest_ready_age=from_duration(counts.oldest_ready_age) if counts.HasField("oldest_ready_age") else None,
    )


def queue_message(
    name: str,
    options: JobOptions | None,
    *,
    max_data_bytes: int | None = None,
    max_depth: int | None = None,
    policy: QueuePolicy | str | None = None,
    limits: QueueLimits | None = None,
    fair: bool | None = None,
    waiting_retention: Seconds | None = None,
) -> admin_service_pb2.Queue:
    """What is said of a queue. Raises ValueError for a word that is no policy."""
    return admin_service_pb2.Queue(
        name=name,
        options=None if options is None else options_message(options),
        max_data_bytes=max_data_bytes,
        max_depth=max_depth,
        policy=_POLICY_NUMBERS[QueuePolicy.UNSPECIFIED if policy is None else QueuePolicy(policy)],
        limits=None if limits is None else _limits_message(limits),
        fair=fair,
        waiting_retention=_duration(waiting_retention),
    )


def _limits_message(limits: QueueLimits) -> admin_service_pb2.QueueLimits:
    return admin_service_pb2.QueueLimits(
        max_active=limits.max_active,
        rate=_rate_message(limits.rate),
        group_max_active=limits.group_max_active,
        tier_max_active=limits.tier_max_active,
        group_rate=_rate_message(limits.group_rate),
    )


def _rate_message(rate: Rate | None) -> admin_service_pb2.Rate | None:
    return None if rate is None else admin_service_pb2.Rate(starts=rate.starts, period=to_duration(rate.period))


def _limits_from(message: admin_service_pb2.QueueLimits) -> QueueLimits:
    return QueueLimits(
        max_active=message.max_active if message.HasField("max_active") else None,
        rate=_rate_from(message.rate) if message.HasField("rate") else None,
        group_max_active=message.group_max_active if message.HasField("group_max_active") else None,
        tier_max_active=dict(message.tier_max_active),
        group_rate=_rate_from(message.group_rate) if message.HasField("group_rate") else None,
    )


def _rate_from(message: admin_service_pb2.Rate) -> Rate:
    return Rate(message.starts, from_duration(message.period))


def cancelled_from(result: admin_service_pb2.CancelResult) -> Cancelled:
    """What became of one job of a CancelJobs call."""
    return Cancelled(result.job_id, _CANCEL_STATUSES.get(result.status, CancelStatus.UNSPECIFIED))
