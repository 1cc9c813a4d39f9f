"""The domain's values as the contract's messages. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from uuid import UUID

import orjson
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobwire.v1 import admin_service_pb2, job_pb2, queue_service_pb2
from jobwire_server import __version__
from jobwire_server.api.encoded import field, sized
from jobwire_server.broker.messages import (
    AckAnswer,
    Cancellation,
    Deliveries,
    Draining,
    Event,
    Heartbeat,
    Opened,
    Quiet,
)
from jobwire_server.domain.jobs import AckResult, CancelStatus, Delivery, Job, JobFailure, Labels, Origin, Published
from jobwire_server.domain.queues import (
    NOTHING_SAID,
    JobOptions,
    JobOptionsPatch,
    Queue,
    QueueCounts,
    QueueLimits,
    Rate,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_RESULT = field(queue_service_pb2.PublishResponse, "results")
_CREATED_ID = queue_service_pb2.PublishResult(created=True).SerializeToString() + field(
    queue_service_pb2.PublishResult, "job_id"
)
_ACKED = field(queue_service_pb2.AckResponse, "results")
_DELIVERIES = field(queue_service_pb2.SubscribeResponse, "deliveries")
_DELIVERY = field(queue_service_pb2.Deliveries, "deliveries")
_HANDLE = field(queue_service_pb2.Delivery, "handle")
_JOB_ID = field(queue_service_pb2.Delivery, "job_id")
_DATA = field(queue_service_pb2.Delivery, "data")
_CHECKPOINT = field(queue_service_pb2.Delivery, "checkpoint")
_ORIGIN = field(queue_service_pb2.Delivery, "origin")


@lru_cache(maxsize=256)
def duration(ms: int) -> Duration:
    """Milliseconds as a message, which is shared: to be put into others, never to be changed."""
    return Duration(seconds=ms // 1_000, nanos=ms % 1_000 * 1_000_000)


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A point in time as a message, or absent."""
    return None if moment is None else instant(moment)


def instant(moment: datetime) -> Timestamp:
    """A point in time as a message."""
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def publish_response(results: Sequence[Published]) -> queue_service_pb2.PublishResponse:
    encoded = b"".join([_RESULT + sized(_publish_result(result)) for result in results])
    return queue_service_pb2.PublishResponse.FromString(encoded)


def _publish_result(published: Published) -> bytes:
    if published.created:
        return _CREATED_ID + sized(str(published.id).encode())
    assert published.reason is not None
    assert published.met is not None
    return queue_service_pb2.PublishResult(
        # The id under which the work is stored, whoever brought it.
        job_id=str(published.met),
        reason=queue_service_pb2.NotCreatedReason.ValueType(published.reason),
        met_job_id=str(published.met),
        data_differs=published.data_differs,
    ).SerializeToString()


def ack_response(answer: AckAnswer) -> queue_service_pb2.AckResponse:
    # All that one statement completed has one result, which is encoded once.
    different = {id(result): result for result in answer.results}
    made = {key: _ACKED + sized(_ack_result(result).SerializeToString()) for key, result in different.items()}
    response = queue_service_pb2.AckResponse.FromString(b"".join([made[id(result)] for result in answer.results]))
    response.session_alive = answer.session_alive
    return response


def _ack_result(result: AckResult) -> queue_service_pb2.AckResult:
    return queue_service_pb2.AckResult(
        status=queue_service_pb2.AckStatus.ValueType(result.status),
        state=job_pb2.JobState.ValueType(result.state or 0),
        cancel=queue_service_pb2.CancelReason.ValueType(result.stop or 0),
        expires_in=None if result.expires_in_ms is None else duration(result.expires_in_ms),
    )


def stream_message(event: Event, sequence: int) -> queue_service_pb2.SubscribeResponse:
    """An event as the message of this number."""
    message = queue_service_pb2.SubscribeResponse(sequence=sequence)
    match event:
        case Opened():
            message.opened.CopyFrom(_opened(event))
        case Deliveries():
            deliveries = b"".join([_DELIVERY + sized(_delivery(delivery)) for delivery in event.deliveries])
            message.MergeFromString(_DELIVERIES + sized(deliveries))
        case Cancellation():
            message.cancellation.CopyFrom(_cancellation(event))
        case Heartbeat():
            message.heartbeat.SetInParent()
        case Quiet():
            message.quiet.SetInParent()
        case Draining():
            message.draining.resume_within.CopyFrom(duration(event.resume_within_ms))
            message.draining.reconnect_delay.CopyFrom(duration(event.reconnect_delay_ms))
    return message


def _opened(event: Opened) -> queue_service_pb2.SessionOpened:
    return queue_service_pb2.SessionOpened(
        session_id=str(event.session_id),
        epoch=event.epoch,
        resumed=event.resumed,
        lost=map(str, event.lost),
        max_in_flight=event.max_in_flight,
        heartbeat_interval=duration(event.heartbeat_ms),
        resume_grace=duration(event.resume_grace_ms),
        server_version=__version__,
    )


def _cancellation(event: Cancellation) -> queue_service_pb2.Cancellation:
    return queue_service_pb2.Cancellation(
        handle=str(event.handle),
        job_id=str(event.handle.job_id),
        reason=queue_service_pb2.CancelReason.ValueType(event.reason),
        grace=duration(event.grace_ms),
    )


def _delivery(delivery: Delivery) -> bytes:
    handle = delivery.handle
    parts = (
        _alike(
            handle.queue,
            delivery.priority,
            delivery.attempt,
            delivery.retry_count,
            delivery.retry_limit,
            delivery.expire_ms,
        ),
        _created_at(delivery.created_at),
        _HANDLE,
        sized(handle.text),
        _JOB_ID,
        sized(handle.job_id_text),
        _DATA,
        sized(delivery.data.encode()),
        _headers_of(delivery.headers) if delivery.headers else b"",
        _CHECKPOINT + sized(delivery.checkpoint.encode()) if delivery.checkpoint else b"",
        _ORIGIN + sized(_origin(delivery.origin, trace=False).SerializeToString()) if delivery.origin else b"",
    )
    return b"".join(parts)


@lru_cache(maxsize=256)
def _alike(queue: str, priority: int, attempt: int, retry_count: int, retry_limit: int, expire_ms: int) -> bytes:
    """What most deliveries of a queue have in common."""
    return queue_service_pb2.Delivery(
        queue=queue,
        priority=priority,
        attempt=attempt,
        retry_count=retry_count,
        retry_limit=retry_limit,
        expire_in=duration(expire_ms),
    ).SerializeToString()


@lru_cache(maxsize=256)
def _created_at(moment: datetime) -> bytes:
    """The time of those that were published together."""
    return queue_service_pb2.Delivery(create_time=timestamp(moment)).SerializeToString()


def _headers_of(text: str) -> bytes:
    return queue_service_pb2.Delivery(headers=headers(text)).SerializeToString()


def headers(text: str | None) -> Mapping[str, str] | None:
    """Headers as stored."""
    return orjson.loads(text) if text else None


def job(job: Job) -> job_pb2.Job:
    """A job as it stands."""
    return job_pb2.Job(
        queue=job.queue,
        id=str(job.id),
        state=job_pb2.JobState.ValueType(job.state),
        data=job.data,
        headers=headers(job.headers),
        priority=job.priority,
        options=_options(job.options),
        attempt=job.attempt,
        retry_count=job.retry_count,
        loss_count=job.loss_count,
        release_count=job.release_count,
        progress=None
        if job.progress is None
        else job_pb2.Progress(fraction=job.progress.fraction, note=job.progress.note),
        output=job.output or "",
        errors=map(_job_error, job.errors),
        create_time=timestamp(job.created_at),
        start_after=timestamp(job.start_after),
        start_time=timestamp(job.started_at),
        finish_time=timestamp(job.finished_at),
        worker=job.worker,
        session_id=str(job.session_id or ""),
        cancel_requested=job.cancel_requested,
        revision=job.revision,
        key=job.labels.key or "",
        group=group(job.labels),
        waits_for=_gate(job.waits_at) if job.waits_at else "",
        checkpoint=job.checkpoint or "",
        origin=None if job.origin is None else _origin(job.origin),
    )


def _origin(origin: Origin, *, trace: bool = True) -> job_pb2.JobOrigin:
    message = job_pb2.JobOrigin(
        queue=origin.queue,
        job_id=str(origin.id),
        create_time=timestamp(origin.created_at),
        fail_time=timestamp(origin.failed_at),
        attempts=origin.attempts,
        last_error=None if origin.error is None else _job_error(origin.error),
        first_queue=origin.first_queue or "",
        first_job_id=str(origin.first_id or ""),
        redrives=origin.redrives,
    )
    if not trace:
        message.last_error.ClearField("trace")
    return message


def group(labels: Labels) -> job_pb2.JobGroup | None:
    """A job's group; absent if it has none."""
    return None if labels.group is None else job_pb2.JobGroup(id=labels.group, tier=labels.tier or "")


def _gate(gate: str) -> str:
    """A gate's name as people read it."""
    return f"{'key' if gate[0] == 'k' else 'group'} {gate[1:]}".rstrip()


def _job_error(failure: JobFailure) -> job_pb2.JobError:
    return job_pb2.JobError(
        attempt=failure.attempt,
        time=timestamp(failure.time),
        type=failure.type,
        message=failure.message,
        trace=failure.trace,
        worker=failure.worker,
        start_time=timestamp(failure.started_at),
    )


def _options(options: JobOptions) -> job_pb2.JobOptions:
    return job_pb2.JobOptions(
        retry_limit=options.retry_limit,
        retry_delay=duration(options.retry_delay_ms),
        retry_backoff=options.retry_backoff,
        retry_delay_max=duration(options.retry_delay_max_ms),
        expire_in=duration(options.expire_ms),
        retention=duration(options.retention_ms),
        dead_letter=options.dead_letter,
    )


def options_said(options: JobOptionsPatch) -> job_pb2.JobOptions | None:
    """What was said of a job's rules; absent if nothing was."""

    def span(ms: int | None) -> Duration | None:
        return None if ms is None else duration(ms)

    if options is NOTHING_SAID:
        return None
    return job_pb2.JobOptions(
        retry_limit=options.retry_limit,
        retry_delay=span(options.retry_delay_ms),
        retry_backoff=options.retry_backoff,
        retry_delay_max=span(options.retry_delay_max_ms),
        expire_in=span(options.expire_ms),
        retention=span(options.retention_ms),
    )


def queue(queue: Queue, counts: QueueCounts | None = None) -> admin_service_pb2.Queue:
    """A queue as stored, with its counts if they were asked for."""
    return admin_service_pb2.Queue(
        name=queue.name,
        options=_options(queue.options),
        max_data_bytes=queue.max_data_bytes,
        max_depth=queue.max_depth,
        policy=admin_service_pb2.QueuePolicy.ValueType(queue.policy + 1),
        limits=_limits(queue.limits),
        fair=queue.fair,
        waiting_retention=None if queue.waiting_ms is None else duration(queue.waiting_ms),
        paused=queue.paused,
        create_time=timestamp(queue.created_at),
        update_time=timestamp(queue.updated_at),
        counts=None if counts is None else _counts(counts),
    )


def _counts(counts: QueueCounts) -> admin_service_pb2.QueueCounts:
    age = counts.oldest_ready_ms
    return admin_service_pb2.QueueCounts(
        ready=counts.ready,
        scheduled=counts.scheduled,
        active=counts.active,
        blocked=counts.blocked,
        failed=counts.failed,
        exact_up_to=counts.exact_up_to,
        oldest_ready_age=None if age is None else duration(age),
    )


def _limits(limits: QueueLimits) -> admin_service_pb2.QueueLimits:
    return admin_service_pb2.QueueLimits(
        max_active=limits.max_active,
        rate=_rate(limits.rate),
        group_max_active=limits.group_max_active,
        tier_max_active=limits.tier_max_active,
        group_rate=_rate(limits.group_rate),
    )


def _rate(rate: Rate | None) -> admin_service_pb2.Rate | None:
    return None if rate is None else admin_service_pb2.Rate(starts=rate.starts, period=duration(rate.period_ms))


def cancel_response(
    job_ids: Sequence[UUID], statuses: Mapping[UUID, CancelStatus]
) -> admin_service_pb2.CancelJobsResponse:
    """A result for each id, in order."""
    return admin_service_pb2.CancelJobsResponse(
        results=[
            admin_service_pb2.CancelResult(
                job_id=str(job_id), status=admin_service_pb2.CancelStatus.ValueType(statuses[job_id])
            )
            for job_id in job_ids
        ]
    )
