"""Keys, groups, and what stands in a job's way: as they travel, and as they are read."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import jobwire
from jobwire import (
    Client,
    Group,
    InvalidArgument,
    JobOptions,
    JobState,
    NotCreatedReason,
    QueueLimits,
    QueuePolicy,
    Rate,
)
from jobwire.convert import queue_info_from, queue_message
from jobwire.v1 import admin_service_pb2, job_pb2
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.scripted_server import ScriptedServer


@pytest.mark.parametrize(
    ("labels", "spec"),
    [
        ({"key": "order 7"}, pb.JobSpec(key="order 7")),
        ({"group": "acme"}, pb.JobSpec(group=job_pb2.JobGroup(id="acme"))),
        ({"group": Group("acme", "gold")}, pb.JobSpec(group=job_pb2.JobGroup(id="acme", tier="gold"))),
        ({"throttle": 60}, pb.JobSpec(throttle={"seconds": 60})),
        ({"debounce": timedelta(minutes=1)}, pb.JobSpec(debounce={"seconds": 60})),
        ({"unique_for": 0.25, "key": "k"}, pb.JobSpec(unique_for={"nanos": 250_000_000}, key="k")),
        ({"options": JobOptions(dead_letter="dead")}, pb.JobSpec(options=job_pb2.JobOptions(dead_letter="dead"))),
        ({"key": None, "group": None, "throttle": None}, pb.JobSpec()),
    ],
)
async def test_labels_travel(server: ScriptedServer, client: Client, labels: dict[str, Any], spec: pb.JobSpec) -> None:
    await client.publish("q", 1, **labels)
    await asyncio.to_thread(jobwire.publish, server.address, "q", 1, **labels)
    for request in server.publishes:
        (sent,) = request.jobs
        spec.id, spec.data = sent.id, "1"
        assert sent == spec


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        ({"throttle": 1, "unique_for": 1}, "throttle and debounce and unique_for exclude each other"),
        ({"start_in": 1, "start_after": 2}, "start_after and start_in exclude each other"),
        ({"key": 5}, "bad argument type"),
    ],
)
async def test_what_cannot_travel_is_refused_here(
    server: ScriptedServer, client: Client, labels: dict[str, Any], rule: str
) -> None:
    with pytest.raises(InvalidArgument, match=rule):
        await client.publish("q", 1, **labels)
    assert not server.publishes


async def test_a_job_that_was_not_stored_says_why_and_what_it_met(server: ScriptedServer, client: Client) -> None:
    reasons = iter([*pb.NotCreatedReason.values()[1:], 99])

    def answer(request: pb.PublishRequest) -> pb.PublishResponse:
        result = pb.PublishResult(job_id="other", met_job_id="other")
        result.reason = next(reasons)  # type: ignore[assignment]
        return pb.PublishResponse(results=[result])

    server.answer_publish = answer
    published = [await client.publish("q", 1, key="k") for _ in range(6)]
    assert [result.reason for result in published] == [
        NotCreatedReason.DUPLICATE_ID,
        NotCreatedReason.POLICY,
        NotCreatedReason.THROTTLED,
        NotCreatedReason.DEBOUNCED,
        NotCreatedReason.NOT_UNIQUE,
        NotCreatedReason.OTHER,
    ]
    assert {(result.created, result.met_job_id, result.job_id) for result in published} == {(False, "other", "other")}


async def test_a_blocked_job_says_what_it_waits_for(server: ScriptedServer, client: Client) -> None:
    group = job_pb2.JobGroup(id="acme", tier="gold")
    message = job_pb2.Job(id="j", state=job_pb2.JOB_STATE_BLOCKED, key="k", group=group, waits_for="key k")
    server.answer_get_job = lambda request: pb.GetJobResponse(job=message)
    job = await client.get_job("j")
    assert (job.state, job.key, job.group, job.waits_for) == (JobState.BLOCKED, "k", Group("acme", "gold"), "key k")
    assert not job.finished


LIMITS = QueueLimits(5, Rate(10, timedelta(minutes=1)), 2, {"gold": 8}, Rate(3, 0.5))


def test_what_is_said_of_a_queue_is_what_is_read_of_it() -> None:
    message = queue_message(
        "q", None, policy="stately", limits=LIMITS, fair=True, waiting_retention=timedelta(days=1), max_depth=7
    )
    message.counts.blocked = 4
    message.paused = True
    read = queue_info_from(message)
    assert (read.policy, read.limits, read.fair) == (QueuePolicy.STATELY, LIMITS, True)
    assert (read.waiting_retention, read.max_depth, read.paused) == (86_400, 7, True)
    assert read.counts is not None
    assert read.counts.blocked == 4


def test_what_is_not_said_of_a_queue_does_not_travel() -> None:
    assert queue_message("q", None) == admin_service_pb2.Queue(name="q")
    bare = queue_info_from(admin_service_pb2.Queue(name="q", policy=1))  # type: ignore[arg-type]
    assert (bare.policy, bare.limits, bare.waiting_retention) == (QueuePolicy.STANDARD, QueueLimits(), None)
    with pytest.raises(ValueError, match="nonsense"):
        queue_message("q", None, policy="nonsense")
