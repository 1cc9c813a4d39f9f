"""Scenarios about who may say what became of a job."""

from __future__ import annotations

import asyncio

from jobwire import CancelStatus, JobState
from tests.conformance.another_worker import AnotherWorker
from tests.conformance.scenario import scenario
from tests.conformance.stage import Stage

PAYLOAD = 60 * 1024


@scenario
async def stale_lease(stage: Stage) -> None:
    """A worker that was cut off until its jobs went to another one stops its handlers and changes nothing."""
    proxy = await stage.proxy()
    driver = await stage.driver(proxy.address)
    await driver.work(stage.queue, concurrency=2, heartbeat_interval=2, resume_grace=4)
    running, ended = await stage.publish("still runs", "ends while cut off")
    first_attempts = {job_id: (await driver.started(job_id))["attempt"] for job_id in (running, ended)}
    proxy.freeze()
    await driver.complete(ended, "stale")
    async with AnotherWorker(stage.server.address, stage.queue, "of the other worker"):
        for job_id in (running, ended):
            job = await stage.finished(job_id)
            assert (job.state, job.output) == (JobState.COMPLETED, "of the other worker")
            assert job.attempt == first_attempts[job_id] + 1
    # It may find out by itself, or be told so when the network is well again.
    proxy.heal()
    stopped = await driver.hears("stopping", job_id=running)
    assert stopped["reason"] in ("silence", "lease_lost", "")
    # It goes on working, and by then what it had to say of the old jobs has been answered.
    [fresh] = await stage.publish("fresh")
    await driver.started(fresh)
    await driver.complete(fresh, "fresh")
    await stage.completed(fresh, "fresh")
    await driver.stop()
    for job_id in (running, ended):
        job = await stage.job(job_id)
        assert (job.state, job.output) == (JobState.COMPLETED, "of the other worker")
        assert job.attempt == first_attempts[job_id] + 1
        assert len(driver.said("started", job_id=job_id)) == 1


@scenario
async def extend(stage: Stage) -> None:
    """A handler that extends its time limit keeps its job beyond it; one that does not loses it."""
    driver = await stage.driver()
    await driver.work(stage.queue, concurrency=2)
    extended, expired = await stage.publish("extended", "expires", expire_in=8, retry_limit=0)
    await driver.started(extended)
    await driver.started(expired)
    await driver.extend(extended, 600)
    job = await stage.finished(expired)
    assert (job.state, [error.type for error in job.errors]) == (JobState.FAILED, ["EXPIRED"])
    assert (await stage.job(extended)).state is JobState.ACTIVE
    assert not driver.said("stopping", job_id=extended)
    await driver.complete(extended, "late, and in time")
    await stage.completed(extended, "late, and in time")


@scenario
async def cancel(stage: Stage) -> None:
    """A handler whose job is cancelled is told to stop, the job ends as cancelled, and the place is free for another
    job.
    """
    driver = await stage.driver()
    await driver.work(stage.queue)
    [job_id] = await stage.publish("to be cancelled")
    await driver.started(job_id)
    [cancelled] = await stage.truth.admin.cancel_jobs(stage.queue, [job_id])
    assert cancelled.status is CancelStatus.REQUESTED
    stopped = await driver.hears("stopping", job_id=job_id)
    assert stopped["reason"] in ("requested", "")
    assert (await stage.finished(job_id)).state is JobState.CANCELLED
    [following] = await stage.publish("next")
    await driver.started(following)
    await driver.complete(following)
    await stage.completed(following)
    await driver.stop()


@scenario
async def slow_reader(stage: Stage) -> None:
    """A worker on a slow line gets large jobs one by one, in order and once each, and keeps its session."""
    proxy = await stage.proxy(buffer=8 * 1024)
    proxy.trickle(50_000, piece=4096, direction="down")
    driver = await stage.driver(proxy.address)
    # The first jobs wait already, so that each comes as soon as there is a place.
    ids = await stage.publish(*(f"{n} ".ljust(PAYLOAD, "x") for n in range(6)))
    await driver.work(stage.queue, heartbeat_interval=2, resume_grace=15)
    for n, job_id in enumerate(ids):
        started = (await driver.hears_all("started", n + 1))[n]
        assert (started["job_id"], len(started["data"])) == (job_id, PAYLOAD)
        # Long enough that a second one would be there if it had been sent; the first time, that heartbeats were missed.
        await asyncio.sleep(0.3 if n else 7)
        assert len(driver.said("started")) == n + 1
        assert driver.said("stopping") == []
        await driver.complete(job_id, n)
    for n, job_id in enumerate(ids):
        await stage.completed(job_id, n)
    proxy.heal()
    await driver.stop()
    assert len(driver.said("started")) == len(ids)
