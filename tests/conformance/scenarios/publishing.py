"""Scenarios of those who publish."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from jobwire import JobState, NotFound, new_job_id
from tests.conformance.driver import Refused
from tests.conformance.scenario import scenario
from tests.conformance.stage import Stage

PAYLOADS = [
    {"file_key": "uploads/a.xlsx", "rows": 3339, "share": 0.5, "nested": {"list": [1, [2, {}], None, True]}},
    'quotes " and \\ and\nlines, ünï¢ödé, 漢字, \N{SNAKE}, \u2028',
    [],
    None,
    0,
]


@scenario
async def publish(stage: Stage) -> None:
    """What is published is stored as it was given, in order, with an id that the client made."""
    driver = await stage.driver()
    results = await driver.publish(stage.queue, *({"data": data} for data in PAYLOADS))
    assert [(result["created"], result["reason"]) for result in results] == [(True, "")] * len(PAYLOADS)
    ids = [result["job_id"] for result in results]
    assert len(set(ids)) == len(PAYLOADS) and {UUID(job_id).version for job_id in ids} == {7}
    jobs = [await stage.job(job_id) for job_id in ids]
    assert [job.data for job in jobs] == PAYLOADS
    assert {(job.state, job.attempt) for job in jobs} == {(JobState.CREATED, 0)}

    rules = {"priority": 7, "start_in": 3600, "retry_limit": 5, "retry_delay": 90, "expire_in": 45}
    [ruled] = await driver.publish(stage.queue, {"data": 1, "id": (given := new_job_id()), **rules})
    job = await stage.job(given)
    said = job.options
    assert ruled["job_id"] == given and job.priority == 7
    assert (said.retry_limit, said.retry_delay, said.expire_in) == (5, 90, 45)
    assert 3590 < (job.start_after - job.created_at).total_seconds() < 3610

    shown = await driver.get(stage.queue, given)
    assert shown == {"state": "created", "attempt": 0, "retry_count": 0, "output": None, "errors": []}
    with pytest.raises(Refused) as unknown:
        await driver.get(stage.queue, new_job_id())
    assert (unknown.value.code, unknown.value.reason) == ("NOT_FOUND", "JOB_NOT_FOUND")


@scenario
async def republish(stage: Stage) -> None:
    """A job that is published again under its id is stored once, also if the answer to the first time was lost."""
    proxy = await stage.proxy()
    driver = await stage.driver(proxy.address, timeout=stage.patience)
    job = {"data": {"n": 1}, "id": new_job_id()}
    [first] = await driver.publish(stage.queue, job)
    [again] = await driver.publish(stage.queue, job)
    [other] = await driver.publish(stage.queue, job | {"data": {"n": 2}})
    told = ("job_id", "created", "reason", "data_differs")
    assert tuple(first[name] for name in told) == (job["id"], True, "", False)
    assert tuple(again[name] for name in told) == (job["id"], False, "DUPLICATE_ID", False)
    assert tuple(other[name] for name in told) == (job["id"], False, "DUPLICATE_ID", True)
    assert (await stage.job(job["id"])).data == {"n": 1}

    # Now the server stores the job, and its answer goes nowhere.
    lost = {"data": "the answer is lost", "id": new_job_id()}
    trap = proxy.freeze_answers_on(lost["id"].encode())
    publishing = asyncio.create_task(driver.publish(stage.queue, lost))
    await stage.until(lambda: _exists(stage, lost["id"]))
    assert trap.sprung.is_set()
    proxy.cut()
    proxy.heal()
    [repeated] = await publishing
    assert repeated["job_id"] == lost["id"]
    [after] = await driver.publish(stage.queue, lost)
    assert (after["created"], after["data_differs"]) == (False, False)
    assert await stage.stored() == 2


async def _exists(stage: Stage, job_id: str) -> bool:
    try:
        return bool(await stage.job(job_id))
    except NotFound:
        return False


@scenario
async def oversize(stage: Stage) -> None:
    """A payload that is too large is refused with DATA_TOO_LARGE and the advice to store it elsewhere, and nothing is
    stored.
    """
    driver = await stage.driver()
    # More than a queue takes by default, and more than any queue can allow, which a client may find out by itself.
    for size in (70 * 1024, 600 * 1024):
        with pytest.raises(Refused) as refused:
            await driver.publish(stage.queue, {"data": "small"}, {"data": "x" * size})
        assert (refused.value.code, refused.value.reason) == ("INVALID_ARGUMENT", "DATA_TOO_LARGE")
        assert "store the content elsewhere" in refused.value.message
    assert await stage.stored() == 0
    await driver.publish(stage.queue, {"data": "x" * 60 * 1024})
    assert await stage.stored() == 1
