"""What an operator says and hears about many jobs: filters, changes, purges, deletions, and the record of them.

Each operation is a conversation of one call or several, told as a generator: it yields the calls and is sent their
answers, and knows nothing of event loops. `jobwire.Admin` and `jobwire.sync.Admin` make the calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from jobwire.convert import job_info_from, options_message, state_from, state_number
from jobwire.errors import InvalidArgument
from jobwire.model import JobInfo, JobOptions, JobState
from jobwire.v1 import admin_service_pb2, operations_pb2
from jobwire.wire import MAX_CALL_ITEMS, Seconds, from_timestamp, to_duration, to_json, to_timestamp

Result = TypeVar("Result")

WORK_SECONDS = 15.0
"""For a call that works for a while before it answers and is not repeated: no less than this."""


class JobChange(StrEnum):
    """What may become of jobs by an operator's hand."""

    CANCEL = "cancel"
    """Waiting ones at once; the workers of running ones are told."""
    RETRY = "retry"
    """Failed and cancelled ones wait again, now, with all their retries before them."""
    RESUME = "resume"
    """Cancelled ones wait again as they did."""
    DELETE = "delete"
    """Waiting and finished ones are removed for good."""
    RELEASE = "release"
    """Running ones are given back; their workers' leases are void."""
    MOVE = "move"
    """Waiting ones go to another queue, where they stand in line by when they were stored."""
    RUN = "run"
    """Those that wait for a time wait no longer."""
    ERASE = "erase"
    """Payload, output, errors and progress are removed; waiting ones are cancelled with it."""


class ChangeStatus(StrEnum):
    """What a change did to one job."""

    UNSPECIFIED = "unspecified"
    """An outcome that this version of the client does not know."""
    CHANGED = "changed"
    REQUESTED = "requested"
    """The job runs; its worker is told to stop."""
    WRONG_STATE = "wrong_state"
    """The job's state does not allow it."""
    NOT_FOUND = "not_found"
    ID_TAKEN = "id_taken"
    """The queue to go to knows a job of this id."""
    KEY_TAKEN = "key_taken"
    """The queue's policy allows no other job of its key now; or asks for a key, and it has none."""


class PurgeScope(StrEnum):
    """Which jobs a purge removes; running ones always stay."""

    WAITING = "waiting"
    FINISHED = "finished"
    ALL = "all"


class WhichJobs(StrEnum):
    """Which of several waiting jobs of a key."""

    NEWEST = "newest"
    OLDEST = "oldest"
    ALL = "all"


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs are meant: those for which everything holds that is given. An empty one means all."""

    states: Iterable[JobState | str] = ()
    key: str | None = None
    group: str | None = None
    worker: str | None = None
    """Who holds it, or held it last."""
    error_type: str | None = None
    """With a failed run of this type."""
    error_text: str | None = None
    """With a failed run whose message contains this, in upper or lower case."""
    created_from: datetime | None = None
    created_before: datetime | None = None
    finished_from: datetime | None = None
    finished_before: datetime | None = None
    priority_from: int | None = None
    priority_to: int | None = None
    data_contains: Any = None
    """A value that the payload contains: `{"user": 7}` matches any object with that member."""


@dataclass(frozen=True)
class ChangeResult:
    """What became of one job, or in a dry run would."""

    queue: str
    job_id: str
    status: ChangeStatus
    state: JobState
    """The state in which it was met."""


@dataclass(frozen=True)
class Changes:
    """What became of many jobs."""

    matched: int
    changed: int
    """0 in a dry run."""
    results: tuple[ChangeResult, ...]
    """For ids one each, in order; for a filter a sample."""
    confirmation: str = ""
    """Of a dry run by filter: to be passed to act on what it counted."""
    looked_at: int = 0


@dataclass(frozen=True)
class Updated:
    """What `update_jobs` did."""

    job_ids: tuple[str, ...]
    created_job_id: str
    """The job that was stored because none waited; empty if none was."""


@dataclass(frozen=True)
class Action:
    """What one operator did at one time."""

    id: int
    time: datetime
    actor: str
    what: str
    """Such as `job.cancel` or `queue.update`."""
    queue: str
    """Empty if it was about all of them."""
    selection: Mapping[str, Any]
    """Ids, filter or settings."""
    matched: int
    changed: int


@dataclass(frozen=True)
class Step:
    """One call of an operation: the method of AdminService, its request, and whether it is safe to repeat unseen."""

    method: str
    request: Message
    repeatable: bool = True


OnProgress = Callable[[int, int], None]
"""Told after each call how many jobs matched so far, and how many were changed."""

Steps = Generator[Step, Any, Result]


def list_jobs(
    queue: str, states: Iterable[JobState | str], where: JobFilter | None, limit: int | None, page_size: int
) -> Generator[Step | list[JobInfo], Any, None]:
    """Pages of jobs between the calls for them."""
    given = list(states)
    wanted = where or JobFilter()
    request = admin_service_pb2.ListJobsRequest(
        queue=queue, filter=filter_message(replace(wanted, states=given or wanted.states))
    )
    left = limit
    while left is None or left > 0:
        request.page_size = page_size if left is None else min(page_size, left)
        response = yield Step("ListJobs", request)
        yield [job_info_from(job) for job in response.jobs]
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token
        if left is not None:
            left -= len(response.jobs)


def change_jobs(  # noqa: PLR0913  (it may be said in two ways which jobs, and how many)
    change: JobChange | str,
    queue: str,
    *,
    ids: Iterable[str] | None,
    where: JobFilter | None,
    destination: str,
    dry_run: bool,
    confirmation: str,
    limit: int | None,
    on_progress: OnProgress | None,
) -> Steps[Changes]:
    """Jobs that are named, or that match; raises InvalidArgument unless one of both is said."""
    kind = JobChange(change)
    if ids is not None and where is None:
        return change_ids(kind, queue, ids, destination, dry_run=dry_run)
    if where is None or ids is not None:
        raise InvalidArgument("say which jobs: by ids, or by where", reason="INVALID_ARGUMENT")
    return change_matching(
        kind,
        queue,
        where,
        destination,
        dry_run=dry_run,
        confirmation=confirmation,
        limit=limit,
        on_progress=on_progress,
    )


def change_ids(change: JobChange, queue: str, ids: Iterable[str], destination: str, *, dry_run: bool) -> Steps[Changes]:
    """Jobs that are named, a thousand in a call."""
    named = list(ids)
    total = Changes(0, 0, ())
    for start in range(0, len(named), MAX_CALL_ITEMS):
        request = _change_request(change, queue, destination, dry_run=dry_run)
        request.ids.ids.extend(named[start : start + MAX_CALL_ITEMS])
        response = yield Step("ChangeJobs", request)
        results = tuple(map(_result_from, response.results))
        total = Changes(total.matched + response.matched, total.changed + response.changed, total.results + results)
    return total


def change_matching(
    change: JobChange,
    queue: str,
    where: JobFilter,
    destination: str,
    *,
    dry_run: bool,
    confirmation: str,
    limit: int | None,
    on_progress: OnProgress | None,
) -> Steps[Changes]:
    """Jobs that match, in as many calls as it takes."""
    request = _change_request(change, queue, destination, dry_run=dry_run)
    request.filter.CopyFrom(filter_message(where))
    request.confirmation = confirmation
    request.limit = limit or 0
    sample: tuple[ChangeResult, ...] = ()
    looked_at = 0
    while True:
        response = yield Step("ChangeJobs", request, repeatable=dry_run)
        sample = sample or tuple(map(_result_from, response.results))
        looked_at += response.looked_at
        if on_progress is not None:
            on_progress(response.matched, response.changed)
        if not response.next_page_token:
            return Changes(response.matched, response.changed, sample, response.confirmation, looked_at)
        request.page_token = response.next_page_token


def update_jobs(request: operations_pb2.UpdateJobsRequest) -> Steps[Updated]:
    """Jobs that wait."""
    response = yield Step("UpdateJobs", request)
    return Updated(tuple(response.job_ids), response.created_job_id)


def purge_queue(
    queue: str, scope: PurgeScope | str, *, dry_run: bool, on_progress: OnProgress | None
) -> Steps[Changes]:
    """All waiting jobs of a queue, or all finished ones, or both."""
    number = operations_pb2.PurgeScope.Value(f"PURGE_SCOPE_{PurgeScope(scope).upper()}")
    request = operations_pb2.PurgeQueueRequest(queue=queue, scope=number, dry_run=dry_run)
    while True:
        response = yield Step("PurgeQueue", request)
        if on_progress is not None:
            on_progress(response.matched, response.deleted)
        if not response.next_page_token:
            return Changes(response.matched, response.deleted, ())
        request.page_token = response.next_page_token


def delete_queue(name: str, *, force: bool, on_progress: OnProgress | None) -> Steps[int]:
    """A queue and what is in it; the result is how many jobs went with it."""
    request = operations_pb2.DeleteQueueRequest(name=name, force=force)
    while True:
        response = yield Step("DeleteQueue", request, repeatable=False)
        jobs: int = response.deleted_jobs
        if on_progress is not None:
            on_progress(jobs, jobs)
        if not response.next_page_token:
            return jobs
        request.page_token = response.next_page_token


def list_actions(queue: str, actor: str, limit: int) -> Steps[list[Action]]:
    """What operators did, newest first."""
    request = operations_pb2.ListActionsRequest(queue=queue, actor=actor)
    actions: list[Action] = []
    while len(actions) < limit:
        request.page_size = min(500, limit - len(actions))
        response = yield Step("ListActions", request)
        actions += map(_action_from, response.actions)
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
    return actions


def filter_message(where: JobFilter) -> operations_pb2.JobFilter:
    """A filter as it travels."""

    def moment(value: datetime | None) -> Timestamp | None:
        return None if value is None else to_timestamp(value)

    return operations_pb2.JobFilter(
        states=[state_number(state) for state in where.states],
        key=where.key,
        group=where.group,
        worker=where.worker,
        error_type=where.error_type,
        error_text=where.error_text,
        created_from=moment(where.created_from),
        created_before=moment(where.created_before),
        finished_from=moment(where.finished_from),
        finished_before=moment(where.finished_before),
        priority_from=where.priority_from,
        priority_to=where.priority_to,
        data_contains=None if where.data_contains is None else to_json(where.data_contains),
    )


def update_request(  # noqa: PLR0913  (a job has as many sides)
    queue: str,
    *,
    job_id: str,
    key: str,
    which: WhichJobs | str,
    data: Any,
    priority: int | None,
    start_after: datetime | None,
    start_in: Seconds | None,
    options: JobOptions | None,
    upsert: bool,
) -> operations_pb2.UpdateJobsRequest:
    """What is to change of waiting jobs, as it travels."""
    if bool(job_id) == bool(key):
        raise InvalidArgument("name one job by job_id, or jobs by key", reason="INVALID_ARGUMENT")
    start: Duration | None = None if start_in is None else to_duration(start_in)
    request = operations_pb2.UpdateJobsRequest(
        queue=queue,
        which=operations_pb2.WhichJobs.Value(f"WHICH_JOBS_{WhichJobs(which).upper()}"),
        data=None if data is UNCHANGED else to_json(data),
        priority=priority,
        start_after=None if start_after is None else to_timestamp(start_after),
        start_in=start,
        options=None if options is None else options_message(options),
        upsert=upsert,
    )
    if job_id:
        request.job_id = job_id
    else:
        request.key = key
    return request


class _Unchanged:
    """The payload stays as it is; None would be a payload."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Any = _Unchanged()


def _change_request(
    change: JobChange | str, queue: str, destination: str, *, dry_run: bool
) -> operations_pb2.ChangeJobsRequest:
    request = operations_pb2.ChangeJobsRequest(queue=queue, dry_run=dry_run)
    getattr(request, JobChange(change)).SetInParent()
    if destination:
        if change != JobChange.MOVE:
            raise InvalidArgument("a destination is for moves only", reason="INVALID_ARGUMENT")
        request.move.destination = destination
    return request


def _result_from(result: operations_pb2.ChangeResult) -> ChangeResult:
    return ChangeResult(
        result.queue,
        result.job_id,
        _STATUSES.get(result.status, ChangeStatus.UNSPECIFIED),
        state_from(result.state),
    )


_STATUSES = {
    value: ChangeStatus(name.removeprefix("CHANGE_STATUS_").lower())
    for name, value in operations_pb2.ChangeStatus.items()
}


def _action_from(action: operations_pb2.Action) -> Action:
    return Action(
        action.id,
        from_timestamp(action.time),
        action.actor,
        action.what,
        action.queue,
        json.loads(action.selection or "{}"),
        action.matched,
        action.changed,
    )
