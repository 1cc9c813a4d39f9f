"""Requests of QueueService, checked against every rule of the contract and turned into the domain's values.

What gets past here cannot be refused later for its form: all bounds are those of `domain.limits`, and the first rule
that is broken is reported with its field's path. Only whether something exists is left to the broker.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import orjson
import uuid_utils.compat

from jobwire.v1 import job_pb2, queue_service_pb2
from jobwire_server.api.fields import (
    broken,
    count,
    cut_bytes,
    cut_text,
    duration_ms,
    optional_duration_ms,
    optional_whole,
    path,
    plain_text,
    timestamp,
    total_size,
    uuid,
    whole,
)
from jobwire_server.api.session_requests import shares
from jobwire_server.broker.messages import Ack, Resume, Subscription
from jobwire_server.domain import limits
from jobwire_server.domain.handles import Handle
from jobwire_server.domain.jobs import (
    NO_LABELS,
    AckItem,
    Complete,
    Extend,
    Fail,
    Labels,
    NewJob,
    Outcome,
    Progress,
    Release,
)
from jobwire_server.domain.json_text import check_json
from jobwire_server.domain.queues import NOTHING_SAID, JobOptionsPatch, check_queue_name

_EPOCH_MAX = 2**62
_SLICE = 256 * 1024
_DONE = Complete(None)
_JOB_COST = 2_048
"""A job takes as long to check as so many bytes of its payload, roughly."""


@dataclass(frozen=True, slots=True)
class JobQuery:
    """A GetJob call."""

    queue: str | None
    job_id: UUID
    wait_ms: int
    known_revision: str | None
    until_finished: bool


async def new_jobs(request: queue_service_pb2.PublishRequest, size: int, max_data_bytes: int) -> list[NewJob]:
    """The jobs of a Publish call of `size` bytes into a queue that takes payloads of up to `max_data_bytes`.

    Checked in slices, between which other calls have their turn.
    """
    count(len(request.jobs), "jobs", 1, limits.JOBS_PER_PUBLISH)
    total_size(size, "jobs")
    jobs: list[NewJob] = []
    checked = 0
    for index, spec in enumerate(request.jobs):
        jobs.append(job := new_job(spec, f"jobs[{index}]", max_data_bytes))
        checked += _JOB_COST + len(job.data)
        if checked > _SLICE:
            checked = 0
            await asyncio.sleep(0)
    return jobs


def new_job(spec: queue_service_pb2.JobSpec, at: str, max_data_bytes: int) -> NewJob:
    """A job to be stored, described at the path `at`."""
    job_id = uuid(spec.id, path(at, "id")) if spec.id else uuid_utils.compat.uuid7()
    data = check_json(spec.data, path(at, "data"), max_data_bytes) if spec.data else "null"
    starts_at, has_options = spec.HasField("start_after"), spec.HasField("options")
    labels = _labels(spec, at) if spec.key or spec.HasField("group") or spec.HasField("unique") else NO_LABELS
    if not (
        starts_at
        or has_options
        or spec.priority
        or spec.headers
        or spec.HasField("start_in")
        or labels is not NO_LABELS
    ):
        return NewJob(job_id, data, bool(spec.id))
    return NewJob(
        id=job_id,
        data=data,
        client_id=bool(spec.id),
        priority=whole(spec.priority, path(at, "priority"), -limits.PRIORITY_MAX - 1, limits.PRIORITY_MAX),
        start_after=timestamp(spec.start_after, path(at, "start_after"), limits.START_AHEAD_MAX) if starts_at else None,
        start_in_ms=optional_duration_ms(spec, "start_in", at, 0, limits.START_AHEAD_MAX),
        headers=_headers(spec.headers, path(at, "headers")) if spec.headers else None,
        options=options_patch(spec.options, path(at, "options")) if has_options else NOTHING_SAID,
        labels=labels,
    )


def _labels(spec: queue_service_pb2.JobSpec, at: str) -> Labels:
    group = spec.group if spec.HasField("group") else None
    if group is not None and not group.id:
        raise broken(path(at, "group.id"), "must be set: 1 to 200 characters; leave `group` out for a job of none")
    return Labels(
        key=plain_text(spec.key, path(at, "key"), limits.LABEL) or None,
        group=group and plain_text(group.id, path(at, "group.id"), limits.LABEL),
        tier=(group and plain_text(group.tier, path(at, "group.tier"), limits.LABEL)) or None,
        throttle_ms=optional_duration_ms(spec, "throttle", at, 1, limits.UNIQUE_MAX),
        debounce_ms=optional_duration_ms(spec, "debounce", at, 1, limits.UNIQUE_MAX),
        unique_ms=optional_duration_ms(spec, "unique_for", at, 1, limits.UNIQUE_MAX),
    )


def _headers(headers: Mapping[str, str], at: str) -> str:
    count(len(headers), at, 0, limits.HEADERS)
    for name, value in headers.items():
        if not 1 <= len(name) <= limits.HEADER_NAME or "\0" in name:
            rule = f"must have names of 1 to {limits.HEADER_NAME} characters, none of them NUL"
            raise broken(at, f"{rule}; got {name[:40]!r}, {len(name)} characters long")
        plain_text(value, f"{at}[{name!r}]", limits.HEADER_VALUE)
    return orjson.dumps(dict(headers)).decode()


def options_patch(options: job_pb2.JobOptions, at: str) -> JobOptionsPatch:
    """What a message says of a job's rules."""
    return JobOptionsPatch(
        retry_limit=optional_whole(options, "retry_limit", at, 0, limits.RETRY_LIMIT_MAX),
        retry_delay_ms=optional_duration_ms(options, "retry_delay", at, 0, limits.RETRY_DELAY_MAX),
        retry_backoff=options.retry_backoff if options.HasField("retry_backoff") else None,
        retry_delay_max_ms=optional_duration_ms(options, "retry_delay_max", at, 0, limits.RETRY_DELAY_MAX),
        expire_ms=optional_duration_ms(options, "expire_in", at, limits.EXPIRE_MIN, limits.EXPIRE_MAX),
        retention_ms=optional_duration_ms(options, "retention", at, 0, limits.RETENTION_MAX),
        dead_letter=_dead_letter(options.dead_letter, at) if options.HasField("dead_letter") else None,
    )


def _dead_letter(name: str, at: str) -> str:
    return check_queue_name(name, path(at, "dead_letter")) if name else ""


def subscription(request: queue_service_pb2.SubscribeRequest) -> Subscription:
    """The terms of a Subscribe call, defaults filled in."""
    count(len(request.queues), "queues", 1, limits.QUEUES_PER_SESSION)
    queues = tuple(check_queue_name(name, f"queues[{index}]") for index, name in enumerate(request.queues))
    for index, name in enumerate(queues):
        if name in queues[:index]:
            raise broken(f"queues[{index}]", f"names {name!r} for the second time; the queues must be different")
    max_in_flight = optional_whole(request, "max_in_flight", "", 1, limits.IN_FLIGHT_MAX)
    heartbeat_ms = optional_duration_ms(request, "heartbeat_interval", "", limits.SECOND, limits.HEARTBEAT_MAX)
    grace_ms = optional_duration_ms(request, "resume_grace", "", 0, limits.RESUME_GRACE_DEFAULT)
    return Subscription(
        queues=queues,
        max_in_flight=1 if max_in_flight is None else max_in_flight,
        worker=plain_text(request.worker, "worker", limits.WORKER_NAME),
        heartbeat_ms=limits.HEARTBEAT_DEFAULT if heartbeat_ms is None else heartbeat_ms,
        resume_grace_ms=limits.RESUME_GRACE_DEFAULT if grace_ms is None else grace_ms,
        resume=_resume(request.resume) if request.HasField("resume") else None,
        shares=shares(request.shares, queues) if request.shares else (),
    )


def _resume(resume: queue_service_pb2.Resume) -> Resume:
    count(len(resume.held), "resume.held", 0, limits.IN_FLIGHT_MAX)
    held = (_handle(text, f"resume.held[{index}]") for index, text in enumerate(resume.held))
    return Resume(
        session_id=uuid(resume.session_id, "resume.session_id"),
        epoch=whole(resume.epoch, "resume.epoch", 0, _EPOCH_MAX),
        held=tuple(dict.fromkeys(held)),
    )


def job_query(request: queue_service_pb2.GetJobRequest) -> JobQuery:
    """Which job to look up, and what to wait for."""
    return JobQuery(
        queue=check_queue_name(request.queue) if request.queue else None,
        job_id=uuid(request.job_id, "job_id"),
        wait_ms=duration_ms(request.wait, "wait", 0, limits.WAIT_MAX),
        known_revision=request.known_revision or None,
        until_finished=request.until_finished,
    )


def ack(request: queue_service_pb2.AckRequest) -> Ack:
    """An Ack call. Its outputs are left to `check_outputs`, since each queue has a bound of its own for them."""
    count(len(request.items), "items", 0, limits.ITEMS_PER_ACK)
    total_size(request.ByteSize(), "items")
    session_id = uuid(request.session_id, "session_id") if request.session_id else None
    max_in_flight = optional_whole(request, "max_in_flight", "", 0, limits.IN_FLIGHT_MAX)
    if session_id is None and (request.close_session or max_in_flight is not None):
        raise broken("session_id", "must be set along with `close_session` or `max_in_flight`")
    return Ack(
        session_id=session_id,
        items=tuple([_ack_item(item, index) for index, item in enumerate(request.items)]),
        last_sequence=whole(request.last_sequence, "last_sequence", 0, 2**63 - 1),
        max_in_flight=max_in_flight,
        close_session=request.close_session,
    )


def queues_of_outputs(ack: Ack) -> set[str]:
    """The queues to whose jobs the call gives outputs."""
    return {handle.queue for handle, outcome in ack.items if isinstance(outcome, Complete) and outcome.output}


def check_outputs(ack: Ack, max_bytes: Mapping[str, int]) -> None:
    """Checks the outputs; `max_bytes` says how large they may be, for every queue to which one is given."""
    for index, (handle, outcome) in enumerate(ack.items):
        if isinstance(outcome, Complete) and outcome.output:
            check_json(outcome.output, f"items[{index}].complete.output", max_bytes[handle.queue])


def _ack_item(item: queue_service_pb2.AckItem, index: int) -> AckItem:
    handle = Handle.parse(item.handle) or _handle(item.handle, f"items[{index}].handle")
    if item.HasField("complete"):
        output = item.complete.output
        return AckItem(handle, Complete(output) if output else _DONE)
    return AckItem(handle, _other_outcome(item, f"items[{index}]"))


def _handle(text: str, at: str) -> Handle:
    handle = Handle.parse(text)
    if handle is None:
        raise broken(at, f"is no handle that this service can have made: pass it on as received; got {text[:80]!r}")
    return handle


def _other_outcome(item: queue_service_pb2.AckItem, at: str) -> Outcome:
    match item.WhichOneof("outcome"):
        case "fail":
            return _fail(item.fail, path(at, "fail"))
        case "release":
            return Release(optional_duration_ms(item.release, "delay", path(at, "release"), 0, limits.RETRY_DELAY_MAX))
        case "extend":
            return _extend(item.extend, path(at, "extend"))
        case _:
            raise broken(at, "must say one of `complete`, `fail`, `release` and `extend`")


def _fail(fail: queue_service_pb2.Fail, at: str) -> Fail:
    return Fail(
        type=cut_text(fail.type, limits.ERROR_TYPE),
        message=cut_text(fail.message, limits.ERROR_MESSAGE),
        trace=cut_bytes(fail.trace, limits.ERROR_TRACE),
        permanent=fail.permanent,
        retry_ms=optional_duration_ms(fail, "retry_in", at, 0, limits.RETRY_DELAY_MAX),
    )


def _extend(extend: queue_service_pb2.Extend, at: str) -> Extend:
    progress = checkpoint = None
    if extend.HasField("progress"):
        fraction = extend.progress.fraction if extend.progress.HasField("fraction") else None
        if fraction is not None and not (math.isfinite(fraction) and 0 <= fraction <= 1):
            raise broken(path(at, "progress.fraction"), f"must be 0 to 1; got {fraction:g}")
        progress = Progress(fraction, cut_text(extend.progress.note, limits.PROGRESS_NOTE))
        checkpoint = extend.progress.checkpoint if extend.progress.HasField("checkpoint") else None
        if checkpoint:
            check_json(checkpoint, path(at, "progress.checkpoint"), limits.CHECKPOINT_BYTES)
    expire_ms = optional_duration_ms(extend, "expire_in", at, limits.EXPIRE_MIN, limits.EXPIRE_MAX)
    return Extend(expire_ms, progress, checkpoint)
