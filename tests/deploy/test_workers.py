"""The end of a worker's pod: what runs is finished or given back within the platform's time, at no job's cost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from jobwire import Client, JobState
from tests.workers.workbooks import xlsx

from .cluster import PATIENCE, Cluster
from .manifests import on_kubernetes

pytestmark = pytest.mark.timeout(300)

ENDLESS = Path(__file__).parent / "endless_worker.py"
SERVER = replace(on_kubernetes("jobwire"), replicas=1)
WORKER = on_kubernetes("jobwire-excel-parse")
WORKBOOKS = 8


async def until_one_is(client: Client, state: JobState, ids: list[str], queue: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while all([(await client.get_job(job_id, queue=queue)).state is not state for job_id in ids]):
            await asyncio.sleep(0.05)


async def test_an_update_of_the_reference_worker_repeats_no_workbook(cluster: Cluster, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    content = xlsx([["a", "b", "c"], *([n, n / 2, f"text {n}"] for n in range(20_000))])
    command = [part.replace("s3://files", str(files)) for part in WORKER.command]
    assert str(files) in command
    await cluster.deploy(SERVER)
    async with Client(cluster.target) as client:
        ids = []
        for number in range(WORKBOOKS):
            (files / f"{number}.xlsx").write_bytes(content)
            published = await client.publish("excel-parse", {"file_key": f"{number}.xlsx"})
            ids.append(published.job_id)
        old = await cluster.start(replace(WORKER, command=command))
        await until_one_is(client, JobState.ACTIVE, ids, "excel-parse")
        await cluster.start(replace(WORKER, command=command))
        await cluster.end(old)
        assert (old.exit_code, old.killed) == (0, False), old.text()
        jobs = [await client.wait(job_id, queue="excel-parse", timeout=PATIENCE) for job_id in ids]
    assert [(job.state, job.retry_count, job.loss_count) for job in jobs] == [(JobState.COMPLETED, 0, 0)] * WORKBOOKS
    assert len(list(files.glob("*.clean.parquet"))) == WORKBOOKS


async def test_a_worker_whose_job_does_not_end_gives_it_back_before_it_is_killed(cluster: Cluster) -> None:
    await cluster.deploy(SERVER)
    async with Client(cluster.target) as client:
        published = await client.publish("work", {})
        pod = await cluster.start(replace(WORKER, command=["python", str(ENDLESS), cluster.target]))
        await until_one_is(client, JobState.ACTIVE, [published.job_id], "work")
        await cluster.end(pod)
        assert (pod.exit_code, pod.killed) == (0, False), pod.text()
        job = await client.get_job(published.job_id, queue="work")
    assert (job.state, job.retry_count, job.loss_count) == (JobState.RETRY, 0, 0)
