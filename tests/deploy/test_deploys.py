"""Deploys as a platform makes them, by the files in deploy/: no job runs again, no call fails, nobody is killed."""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from jobwire import Client, JobState
from tests.system.conftest import WORKER, WorkerProcess, until

from .callers import QUEUE, Publishers, Stranger
from .cluster import LATE, Cluster, Pod, at_once
from .manifests import Spec, on_compose, on_kubernetes, on_sae

pytestmark = pytest.mark.timeout(300)

StartWorker = Callable[[str, float, int], WorkerProcess]


@pytest.fixture
def work_for(tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers: target, seconds that a job takes, concurrency. All write to one record."""
    with ExitStack() as stack:

        def start(target: str, seconds: float, concurrency: int) -> WorkerProcess:
            record = tmp_path / "record.txt"
            command = [sys.executable, str(WORKER), target, QUEUE, str(seconds), str(concurrency), str(record)]
            worker = WorkerProcess(command, dict(os.environ), tmp_path / "worker.log", record=record)
            worker.start()
            stack.callback(worker.stop)
            return worker

        yield start


@pytest.mark.parametrize(
    "spec",
    [at_once(on_kubernetes("jobwire")), on_sae("server"), on_compose("server-1")],
    ids=["kubernetes", "sae", "compose"],
)
async def test_an_update_touches_no_running_job_and_refuses_no_call(
    cluster: Cluster, work_for: StartWorker, spec: Spec
) -> None:
    await cluster.deploy(spec)
    publishers, stranger = Publishers(cluster.target), Stranger(cluster)
    worker = work_for(cluster.target, 0.5, 10)
    # Its jobs span what happens to a replica, from preStop to the exit.
    work_for(cluster.target, 8.0, 10)
    async with publishers.busy(), stranger.busy():
        await until(lambda: len(worker.dones()) > 20)
        await cluster.update(spec)
        await asyncio.sleep(LATE)
    async with Client(cluster.target) as client:
        for job_id in publishers.ids:
            job = await client.wait(job_id, queue=QUEUE, timeout=60)
            assert (job.state, job.retry_count, job.loss_count) == (JobState.COMPLETED, 0, 0)
    assert Counter(worker.starts()) == Counter(publishers.ids)
    assert [(pod.exit_code, pod.killed, pod.restarts) for pod in cluster.gone] == [(0, False, 0)] * spec.replicas
    assert [pod.restarts for pod in cluster.pods] == [0] * spec.replicas
    assert stranger.answered > 0
    if spec.pre_stop:
        assert stranger.refused == []


async def test_without_prestop_calls_that_come_late_are_refused(cluster: Cluster) -> None:
    spec = on_kubernetes("jobwire")
    await cluster.deploy(replace(spec, pre_stop=[]))
    stranger = Stranger(cluster)
    async with stranger.busy():
        await until(lambda: stranger.answered > 5)
        assert stranger.refused == []
        await cluster.end(cluster.pods[0])
        await until(lambda: stranger.refused)
    # One that meets the stop on its way is dropped by gRPC with a word of its own.
    assert all("UNAVAILABLE" in refusal or "CANCELLED" in refusal for refusal in stranger.refused)


async def test_a_release_that_does_not_become_ready_gets_no_traffic_and_replaces_nothing(cluster: Cluster) -> None:
    spec = on_kubernetes("jobwire")
    await cluster.deploy(spec)
    serving = list(cluster.pods)
    stranger = Stranger(cluster)
    async with stranger.busy():
        # A database that it does not reach: nothing listens on this port.
        broken = await cluster.start(spec, JOBWIRE_DATABASE_URL="postgresql://127.0.0.1:1/none")
        await until(lambda: broken.probes > 1)
        await asyncio.sleep(LATE + 1)
    assert not broken.ready.is_set()
    assert cluster.ever_known == {pod.address for pod in serving}
    # It lives, and is left in peace: a restart would not bring its database.
    assert broken.restarts == 0
    assert stranger.answered > 0 and stranger.refused == []
    await cluster.end(broken)
    assert (broken.exit_code, broken.killed) == (0, False)


async def test_a_service_with_the_name_of_its_variables_does_not_stop_the_start(cluster: Cluster) -> None:
    # The settings refuse a JOBWIRE_… that they do not know, and Kubernetes adds some for each Service named jobwire.
    spec = on_kubernetes("jobwire")
    pod = await cluster.start(replace(spec, service_links=True))
    await until(lambda: pod.restarts)
    assert "JOBWIRE_SERVICE_HOST: there is no such setting" in pod.text()
    assert not spec.service_links


async def test_workers_spread_over_the_replicas_of_a_name(cluster: Cluster, work_for: StartWorker) -> None:
    await cluster.deploy(on_kubernetes("jobwire"))
    for _ in range(4):
        work_for(cluster.target, 0.1, 1)
    await until(lambda: sum(map(sessions, cluster.pods)) == 4)
    assert all(sessions(pod) > 0 for pod in cluster.pods)


def sessions(pod: Pod) -> float:
    with urllib.request.urlopen(f"http://{pod.address}:8080/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("jobwire_sessions ")))
