"""Scenarios of a worker on a good day."""

from __future__ import annotations

from jobwire import JobState
from tests.conformance.scenario import scenario
from tests.conformance.scenarios.publishing import PAYLOADS
from tests.conformance.stage import Stage


@scenario
async def deliver(stage: Stage) -> None:
    """Jobs come as published, the highest priority first, and never more at once than the worker has places."""
    low = await stage.publish(*PAYLOADS, priority=1)
    high = await stage.publish("high 1", "high 2", priority=5)
    driver = await stage.driver()
    await driver.work(stage.queue, concurrency=2, name="worker of the suite")
    expected = dict(zip([*high, *low], ["high 1", "high 2", *PAYLOADS], strict=True))
    first = await driver.hears_all("started", 2)
    assert {event["job_id"] for event in first} == set(high)
    for done in range(len(expected)):
        event = (await driver.hears_all("started", done + 1))[done]
        # Both places stay taken until the last job.
        started = await driver.hears_all("started", min(done + 2, len(expected)))
        assert len(driver.said("started")) == len(started)
        assert event["data"] == expected[event["job_id"]]
        job = await stage.job(event["job_id"])
        assert (event["attempt"], event["checkpoint"]) == (job.attempt, None)
        assert (job.state, job.worker) == (JobState.ACTIVE, "worker of the suite")
        await driver.complete(event["job_id"], done)
        await stage.completed(event["job_id"], done)
    # A worker that waits gets what is published later.
    [late] = await stage.publish("late")
    await driver.started(late)
    await driver.complete(late)
    await stage.completed(late)
    assert len(driver.said("started")) == len(expected) + 1


@scenario
async def ack(stage: Stage) -> None:
    """A job is completed when its handler has ended, not before, with the output that the handler returned."""
    driver = await stage.driver()
    await driver.work(stage.queue, concurrency=20)
    ids = await stage.publish(*range(20))
    await driver.hears_all("started", 20)
    assert {(await stage.job(job_id)).state for job_id in ids} == {JobState.ACTIVE}
    outputs = [PAYLOADS[n % len(PAYLOADS)] for n in range(20)]
    for job_id, output in zip(ids, outputs, strict=True):
        await driver.complete(job_id, output)
    for job_id, output in zip(ids, outputs, strict=True):
        await stage.completed(job_id, output)
    shown = await driver.wait(stage.queue, ids[0])
    attempt = (await stage.job(ids[0])).attempt
    assert shown == {"state": "completed", "attempt": attempt, "retry_count": 0, "output": outputs[0], "errors": []}
    await driver.stop()
    assert len(driver.said("started")) == 20
    assert (await driver.hears("worker_ended"))["error"] is None


@scenario
async def fail(stage: Stage) -> None:
    """A handler that fails leaves its error's class and message on the job, which ends as failed if it may not run
    again.
    """
    driver = await stage.driver()
    await driver.work(stage.queue, concurrency=2)
    [last_try] = await stage.publish("last try", retry_limit=0)
    [hopeless] = await stage.publish("hopeless", retry_limit=5)
    await driver.started(last_try)
    await driver.fail(last_try, "DiskFull", "no room for \N{SNAKE}", permanent=False)
    await driver.started(hopeless)
    await driver.fail(hopeless, "BadWorkbook", "not a workbook", permanent=True)
    for job_id, error in (
        (last_try, ("DiskFull", "no room for \N{SNAKE}")),
        (hopeless, ("BadWorkbook", "not a workbook")),
    ):
        job = await stage.finished(job_id)
        assert (job.state, job.output) == (JobState.FAILED, None)
        assert [(one.type, one.message) for one in job.errors] == [error]
        assert len(driver.said("started", job_id=job_id)) == 1
    shown = await driver.wait(stage.queue, last_try)
    assert (shown["state"], shown["errors"]) == ("failed", [{"type": "DiskFull", "message": "no room for \N{SNAKE}"}])
    await driver.stop()


@scenario
async def retry(stage: Stage) -> None:
    """A failed run is tried again, after the pause that the handler asked for; one that is given back uses up no
    retry.
    """
    driver = await stage.driver()
    await driver.work(stage.queue)
    [job_id] = await stage.publish("again and again", retry_limit=2, retry_delay=0)
    await driver.started(job_id, run=1)
    await driver.fail(job_id, "Flaky", "once", permanent=False)
    await driver.started(job_id, run=2)
    await driver.fail(job_id, "Flaky", "twice", permanent=False, retry_in=2)
    await driver.started(job_id, run=3)
    job = await stage.job(job_id)
    assert job.started_at is not None and (job.started_at - job.errors[-1].time).total_seconds() >= 2
    await driver.release(job_id, delay=0)
    await driver.started(job_id, run=4)
    job = await stage.job(job_id)
    assert (job.retry_count, job.release_count) == (2, 1)
    assert [error.message for error in job.errors] == ["once", "twice"]
    await driver.complete(job_id, "done")
    job = await stage.finished(job_id)
    assert (job.state, job.output, job.retry_count) == (JobState.COMPLETED, "done", 2)
    attempts = [event["attempt"] for event in driver.said("started")]
    assert attempts == sorted(set(attempts)) and attempts[-1] == job.attempt
    await driver.stop()


@scenario
async def progress(stage: Stage) -> None:
    """What a handler says of its progress is seen while it runs, and its checkpoint reaches the next attempt."""
    driver = await stage.driver()
    await driver.work(stage.queue)
    [job_id] = await stage.publish("long", retry_delay=0)
    await driver.started(job_id)
    await driver.progress(job_id, 0.25, "a quarter", checkpoint={"row": 100})
    job = await stage.becomes(job_id, lambda job: job.progress)
    assert job.progress is not None and (job.progress.fraction, job.progress.note) == (0.25, "a quarter")
    assert (job.state, job.checkpoint) == (JobState.ACTIVE, {"row": 100})
    # The latest word wins, however quickly they follow each other, and the checkpoint stays.
    for n in range(1, 21):
        await driver.progress(job_id, n / 20, f"step {n}")
    await stage.becomes(job_id, lambda job: job.progress and job.progress.note == "step 20")
    await driver.fail(job_id, "Interrupted", "half way", permanent=False)
    started = await driver.started(job_id, run=2)
    assert started["checkpoint"] == {"row": 100}
    await driver.complete(job_id)
    assert (await stage.finished(job_id)).state is JobState.COMPLETED
    await driver.stop()


@scenario
async def sigterm(stage: Stage) -> None:
    """After SIGTERM a worker takes no more jobs, lets its handler finish, reports the end, and exits with 0."""
    driver = await stage.driver()
    await driver.work(stage.queue, concurrency=2)
    [held] = await stage.publish("held")
    await driver.started(held)
    driver.terminate()
    # When the worker has told the server that it takes nothing more, nothing is delivered to it any more.
    await stage.until(lambda: _takes_nothing(stage))
    [later] = await stage.publish("later")
    await driver.complete(held, "finished")
    await stage.completed(held, "finished")
    assert await driver.ends() == 0
    assert (await driver.hears("worker_ended"))["error"] is None
    assert not driver.said("started", job_id=later)
    assert (await stage.job(later)).attempt == 0
    # It has said that it leaves: its session did not wait for it.
    assert await stage.sessions() == []


async def _takes_nothing(stage: Stage) -> bool:
    return all(session.max_in_flight == 0 for session in await stage.sessions())
