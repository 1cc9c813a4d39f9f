"""Requests about finding, changing, updating and purging jobs, checked and turned into the domain's values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import uuid_utils.compat
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from jobwire.v1 import admin_service_pb2, operations_pb2
from jobwire_server.api import tokens
from jobwire_server.api.fields import (
    broken,
    count,
    optional_duration_ms,
    optional_whole,
    path,
    plain_text,
    timestamp,
    uuid,
    whole,
)
from jobwire_server.api.requests import options_patch
from jobwire_server.broker.queue_removal import Removal, Step
from jobwire_server.domain import limits
from jobwire_server.domain.errors import ConfirmationRequired
from jobwire_server.domain.jobs import FINISHED, NO_LABELS, JobState, Labels, NewJob
from jobwire_server.domain.json_text import check_json
from jobwire_server.domain.operations import WAITING, Change, JobFilter, JobPatch, Place, Walk, WhichJobs
from jobwire_server.domain.queues import check_queue_name

_JOBS_PER_PAGE, _JOBS_PER_PAGE_MAX = 50, 500
_ACTIONS_PER_PAGE = 50
_IDS_PER_CHANGE = 1_000
_CHANGED_MAX = 10**12
_ACTION_MAX = 2**62


@dataclass(frozen=True, slots=True)
class JobPage:
    """Which jobs to list: up to `size`, of a queue or (None) of all, from `place` on."""

    queue: str | None
    wanted: JobFilter
    place: Place | None
    size: int


@dataclass(frozen=True, slots=True)
class ChangeCall:
    """A ChangeJobs call: `ids`, or the jobs that match `wanted`."""

    queue: str | None
    change: Change
    destination: str | None
    dry_run: bool
    ids: list[UUID] | None
    wanted: JobFilter
    walk: Walk
    about: str
    """What tokens are bound to."""
    selection: dict[str, Any]
    """What the record says."""


def job_page(request: admin_service_pb2.ListJobsRequest) -> JobPage:
    """Which jobs to list."""
    queue = check_queue_name(request.queue) if request.queue else None
    states = _states(request.states, "states")
    wanted = job_filter(request.filter, "filter")
    if states and wanted.states:
        raise broken("states", "are given, and `filter.states` too: give one of them")
    return JobPage(
        queue=queue,
        wanted=dataclasses.replace(wanted, states=wanted.states or states),
        place=_place(request.page_token, queue) if request.page_token else None,
        size=whole(request.page_size, "page_size", 0, _JOBS_PER_PAGE_MAX) or _JOBS_PER_PAGE,
    )


def page_token(place: Place | None, queue: str | None) -> str:
    """Where the next page of jobs begins: the last id, and with all queues the queue before it."""
    if place is None:
        return ""
    return str(place.before) if queue is not None else f"{place.queue}/{place.before or ''}"


def _place(token: str, queue: str | None) -> Place:
    if queue is not None:
        return Place(queue, uuid(token, "page_token"))
    name, _, before = token.partition("/")
    return Place(check_queue_name(name, "page_token"), uuid(before, "page_token") if before else None)


def job_filter(message: operations_pb2.JobFilter, at: str) -> JobFilter:
    """Which jobs are meant."""
    return JobFilter(
        states=_states(message.states, path(at, "states")),
        key=_text(message, "key", at, limits.LABEL),
        group=_text(message, "group", at, limits.LABEL),
        worker=_text(message, "worker", at, limits.WORKER_NAME),
        error_type=_text(message, "error_type", at, limits.ERROR_TYPE),
        error_text=_text(message, "error_text", at, limits.ERROR_MESSAGE),
        created_from=_moment(message, "created_from", at),
        created_before=_moment(message, "created_before", at),
        finished_from=_moment(message, "finished_from", at),
        finished_before=_moment(message, "finished_before", at),
        priority_from=optional_whole(message, "priority_from", at, -(2**31) + 1, 2**31 - 1),
        priority_to=optional_whole(message, "priority_to", at, -(2**31) + 1, 2**31 - 1),
        contains=check_json(message.data_contains, path(at, "data_contains"), limits.DATA_BYTES_DEFAULT)
        if message.HasField("data_contains")
        else None,
    )


def _states(numbers: Any, at: str) -> frozenset[JobState]:
    count(len(numbers), at, 0, len(JobState))
    return frozenset(_state(number, f"{at}[{index}]") for index, number in enumerate(numbers))


def _state(number: int, at: str) -> JobState:
    try:
        return JobState(number)
    except ValueError:
        raise broken(at, f"must be a state from JOB_STATE_CREATED to JOB_STATE_BLOCKED; got {number}") from None


def _text(message: Message, name: str, at: str, most: int) -> str | None:
    return plain_text(getattr(message, name), path(at, name), most) if message.HasField(name) else None


def _moment(message: Message, name: str, at: str) -> Any:
    return timestamp(getattr(message, name), path(at, name), limits.START_AHEAD_MAX) if message.HasField(name) else None


def change_call(request: operations_pb2.ChangeJobsRequest) -> ChangeCall:
    """Which jobs are to be changed, and how."""
    by_ids = request.WhichOneof("selection") == "ids"
    queue = check_queue_name(request.queue) if request.queue or by_ids else None
    kind = request.WhichOneof("change")
    if kind is None:
        raise broken("change", f"must say what is to become of the jobs: {', '.join(Change)}")
    change = Change(kind)
    destination = check_queue_name(request.move.destination, "move.destination") if change is Change.MOVE else None
    if destination is not None and destination == queue:
        raise broken("move.destination", "is the queue in which the jobs are; name another one")
    about = tokens.digest(_subject(request))
    if by_ids:
        ids = request.ids.ids
        count(len(ids), "ids.ids", 1, _IDS_PER_CHANGE)
        for name in ("confirmation", "page_token", "limit"):
            if getattr(request, name):
                raise broken(name, "is for filters; leave it out with ids")
        named = [uuid(text, f"ids.ids[{index}]") for index, text in enumerate(ids)]
        selection = _selection(request, destination)
        return ChangeCall(queue, change, destination, request.dry_run, named, JobFilter(), Walk(), about, selection)
    if request.WhichOneof("selection") is None:
        raise broken("selection", "must name jobs: give `ids`, or a `filter`, which may be empty to mean all")
    wanted = job_filter(request.filter, "filter")
    if not wanted.possible & change.applies_to:
        allowed = ", ".join(state.name for state in sorted(change.applies_to))
        raise broken("filter.states", f"leave nothing to {change}: that is for {allowed}")
    limit = whole(request.limit, "limit", 0, _CHANGED_MAX) or None
    if request.dry_run and (limit or request.confirmation):
        raise broken("dry_run", "counts all that match; leave `limit` and `confirmation` out")
    walk = _walk(request, about, limit)
    # Of what has been checked: not all that a message may hold can be written down.
    selection = _selection(request, destination)
    return ChangeCall(queue, change, destination, request.dry_run, None, wanted, walk, about, selection)


def _subject(request: operations_pb2.ChangeJobsRequest) -> operations_pb2.ChangeJobsRequest:
    """What a confirmation and a token are about: which jobs, and what is to become of them."""
    subject = operations_pb2.ChangeJobsRequest()
    subject.CopyFrom(request)
    for name in ("dry_run", "confirmation", "limit", "page_token"):
        subject.ClearField(name)
    return subject


def _selection(request: operations_pb2.ChangeJobsRequest, destination: str | None) -> dict[str, Any]:
    selection: dict[str, Any] = MessageToDict(request.ids) if request.WhichOneof("selection") == "ids" else {}
    if request.WhichOneof("selection") == "filter":
        selection["filter"] = MessageToDict(request.filter, preserving_proto_field_name=True)
    if destination is not None:
        selection["destination"] = destination
    return selection


def _walk(request: operations_pb2.ChangeJobsRequest, about: str, limit: int | None) -> Walk:
    """Where a call goes on, and how many jobs it may change: as many as were confirmed, or as the limit says."""
    kind = "count" if request.dry_run else "change"
    if request.page_token:
        facts = tokens.read(request.page_token, "page_token")
        if facts["about"] != about or facts.get("kind") != kind:
            raise broken("page_token", "is of another call; begin anew without it")
        return _walk_of(facts)
    if request.dry_run or limit is not None:
        return Walk(left=limit)
    if not request.confirmation:
        raise ConfirmationRequired("nobody has confirmed how many jobs this changes")
    facts = tokens.read(request.confirmation, "confirmation")
    if facts["about"] != about or facts.get("kind") != "confirmation":
        raise ConfirmationRequired("this confirmation is of another filter or change")
    return Walk(left=tokens.number(facts, "matched", "confirmation"))


def _walk_of(facts: Any) -> Walk:
    at = "page_token"
    queue, before = facts.get("queue"), facts.get("before")
    if not isinstance(queue, str) or not (before is None or isinstance(before, str)):
        raise broken(at, "is no token that Jobwire gave for such a call")
    place = Place(check_queue_name(queue, at), None if before is None else uuid(before, at))
    return Walk(
        place,
        tokens.number(facts, "matched", at),
        tokens.number(facts, "changed", at),
        tokens.optional_number(facts, "left", at),
        tokens.optional_number(facts, "action", at),
    )


def walk_token(walk: Walk, about: str, kind: str) -> str:
    """What a call that is not over gives for the next; empty if it is over."""
    if walk.place is None:
        return ""
    return tokens.write(
        about,
        kind=kind,
        queue=walk.place.queue,
        before=None if walk.place.before is None else str(walk.place.before),
        matched=walk.matched,
        changed=walk.changed,
        left=walk.left,
        action=walk.action,
    )


def confirmation(walk: Walk, about: str) -> str:
    """What a dry run that has seen everything gives."""
    return tokens.write(about, kind="confirmation", matched=walk.matched)


@dataclass(frozen=True, slots=True)
class UpdateCall:
    """An UpdateJobs call; `job` is what to store if none waits."""

    queue: str
    patch: JobPatch
    job: NewJob | None


def update_call(request: operations_pb2.UpdateJobsRequest, max_data_bytes: int) -> UpdateCall:
    """Which waiting jobs are to be changed, and to what."""
    queue = check_queue_name(request.queue)
    by = request.WhichOneof("selection")
    if by is None:
        raise broken("selection", "must name a job by `job_id`, or jobs by `key`")
    if request.HasField("start_after") and request.HasField("start_in"):
        raise broken("start_in", "excludes `start_after`; give one of them")
    try:
        which = WhichJobs(request.which or WhichJobs.NEWEST)
    except ValueError:
        raise broken("which", f"must be newest, oldest or all; got {request.which}") from None
    key = plain_text(request.key, "key", limits.LABEL) if by == "key" else None
    if key == "":
        raise broken("key", "must not be empty")
    patch = JobPatch(
        job_id=uuid(request.job_id, "job_id") if by == "job_id" else None,
        key=key,
        which=which,
        data=check_json(request.data, "data", max_data_bytes) if request.HasField("data") else None,
        priority=optional_whole(request, "priority", "", -limits.PRIORITY_MAX - 1, limits.PRIORITY_MAX),
        start_after=_moment(request, "start_after", ""),
        start_in_ms=optional_duration_ms(request, "start_in", "", 0, limits.START_AHEAD_MAX),
        options=options_patch(request.options, "options"),
    )
    return UpdateCall(queue, patch, _job(patch) if request.upsert else None)


def _job(patch: JobPatch) -> NewJob:
    return NewJob(
        id=patch.job_id or UUID(int=uuid_utils.compat.uuid7().int),
        data="null" if patch.data is None else patch.data,
        client_id=patch.job_id is not None,
        priority=patch.priority or 0,
        start_after=patch.start_after,
        start_in_ms=patch.start_in_ms,
        options=patch.options,
        labels=NO_LABELS if patch.key is None else Labels(key=patch.key),
    )


_SCOPES = {
    operations_pb2.PURGE_SCOPE_WAITING: WAITING,
    operations_pb2.PURGE_SCOPE_FINISHED: FINISHED,
    operations_pb2.PURGE_SCOPE_ALL: WAITING | FINISHED,
}


def purge_call(request: operations_pb2.PurgeQueueRequest) -> ChangeCall:
    """A purge as what it is: the deletion of all that match."""
    queue = check_queue_name(request.queue)
    states = _SCOPES.get(request.scope)
    if states is None:
        raise broken("scope", "must be waiting, finished or all")
    subject = operations_pb2.PurgeQueueRequest(queue=queue, scope=request.scope)
    about = tokens.digest(subject)
    walk = Walk()
    if request.page_token:
        facts = tokens.read(request.page_token, "page_token")
        if facts["about"] != about or facts.get("kind") != ("count" if request.dry_run else "change"):
            raise broken("page_token", "is of another call; begin anew without it")
        walk = _walk_of(facts)
    scope = operations_pb2.PurgeScope.Name(request.scope).removeprefix("PURGE_SCOPE_").lower()
    wanted = JobFilter(states=frozenset(states))
    return ChangeCall(queue, Change.DELETE, None, request.dry_run, None, wanted, walk, about, {"scope": scope})


def removal(request: operations_pb2.DeleteQueueRequest) -> Removal | None:
    """How far the deletion of a queue has come."""
    if not request.page_token:
        return None
    facts = tokens.read(request.page_token, "page_token")
    steps = [step for step in Step if step == facts.get("step")]
    if facts["about"] != request.name or not steps or (steps[0] is Step.LIVE and not request.force):
        raise broken("page_token", "is of another call; begin anew without it")
    return Removal(steps[0], tokens.number(facts, "jobs", "page_token"))


def removal_token(name: str, removal: Removal) -> str:
    """What the next call of a deletion is to pass; empty if the queue is gone."""
    return "" if removal.step is None else tokens.write(name, step=removal.step.value, jobs=removal.jobs)


@dataclass(frozen=True, slots=True)
class ActionPage:
    """Which actions to list: up to `size`, below `before`."""

    queue: str | None
    actor: str | None
    before: int | None
    size: int


def action_page(request: operations_pb2.ListActionsRequest) -> ActionPage:
    """Which actions to list."""
    token = request.page_token
    if token and not (token.isascii() and token.isdigit() and len(token) < 19):
        raise broken("page_token", "is no token that Jobwire gave")
    return ActionPage(
        check_queue_name(request.queue) if request.queue else None,
        plain_text(request.actor, "actor", limits.WORKER_NAME) if request.actor else None,
        int(token) if token else None,
        whole(request.page_size, "page_size", 0, _JOBS_PER_PAGE_MAX) or _ACTIONS_PER_PAGE,
    )
