"""A scenario of many faults in a row, drawn from a seed: what holds under one of them must hold under all of them.

`JOBWIRE_STORM_SEED` draws other faults and jobs. Demanded is what a worker can keep by itself: the faults are short, so
that neither its session nor its patience runs out, and the next ones come when it takes jobs again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Sequence
from typing import Any

from jobwire import JobOptions, JobwireError, NewJob, new_job_id
from tests.conformance.driver import Driver
from tests.conformance.jobs_of_a_storm import RULES, Crew, drawn
from tests.conformance.scenario import scenario
from tests.conformance.stage import Stage
from tests.conformance.weather import Weather

SEED = int(os.environ.get("JOBWIRE_STORM_SEED", "1"))

PLACES = 8
WAVES = 3
JOBS = 22
"""So many come with each wave."""

_TERMS = {"heartbeat_interval": 10, "stop_grace": 60}
"""However slow the machine is: only after 20 s without a sign, or when the end takes a minute, handlers are stopped."""


@scenario
async def storm(stage: Stage) -> None:
    """Under many faults and deploys in a row the session stays one, no handler is disturbed, no job runs again that
    need not, and each gets the end that its handler reported last.
    """
    await see_through(stage, SEED)


async def see_through(stage: Stage, seed: int, *, hard: bool = False) -> None:
    """Play the storm that a seed draws; in a hard one faults outlast the attempt of a call, and jobs may be large."""
    draw = random.Random(seed)
    replicas = await asyncio.gather(*(stage.own_server(drain_linger=0.5) for _ in range(2)))
    proxy = await stage.proxy(replicas[0])
    driver = await stage.driver(proxy.address)
    weather = Weather(proxy, replicas, draw, hard=hard)
    crew = Crew(driver, PLACES, payload=draw.choice([0, 30_000]) if hard else 0)
    working = asyncio.create_task(crew.work())
    try:
        await _play(stage, draw, driver, weather, crew)
    except BaseException as error:  # the end of its time, too
        said = [f"JOBWIRE_STORM_SEED={seed} draws this storm:", *weather.story, *crew.faults]
        with contextlib.suppress(JobwireError):
            said += [f"{one.id} has {one.in_flight} of {one.max_in_flight} jobs" for one in await stage.sessions()]
        error.add_note("\n    ".join(said))
        raise
    finally:
        working.cancel()
        await asyncio.wait([working])
        await weather.is_over()


async def _play(stage: Stage, draw: random.Random, driver: Driver, weather: Weather, crew: Crew) -> None:
    await driver.work(stage.queue, concurrency=PLACES, **_TERMS)
    # Before there is a job: of an opening that was not answered, the server keeps a session for a grace.
    await weather.storm(1)
    deploy, crash = draw.sample(range(1, WAVES), 2)
    for wave in range(WAVES):
        await _publish(stage, draw, crew, JOBS)
        await _all_is_well(stage, weather, crew)
        started = len(driver.said("started"))
        crew.let_go(crew.lives)
        await driver.hears_all("started", started + draw.randint(1, JOBS - PLACES))
        if wave == deploy:
            await weather.deploy()
        if wave == crash:
            await weather.crash()
        await weather.storm(draw.randint(1, 3))
    wrong = [life.wrong(await stage.finished(job_id)) for job_id, life in crew.lives.items()]
    assert "\n".join(filter(None, wrong)) == ""

    last = await _publish(stage, draw, crew, PLACES)
    await _all_is_well(stage, weather, crew)
    # The worker leaves in a storm, too, with these jobs in hand, and others that come to late.
    late = await _publish(stage, draw, crew, PLACES)
    leaving = asyncio.create_task(_leaves(driver, by_signal=draw.random() < 0.5))
    try:
        await weather.storm(1)
        async with weather.silence():
            crew.let_go(crew.lives)
        await weather.storm(1)
        await leaving
    finally:
        leaving.cancel()
    assert (await driver.hears("worker_ended"))["error"] is None
    await stage.until(lambda: _holds(crew.idle))
    wrong = [crew.lives[job_id].wrong(await stage.job(job_id), left=True) for job_id in (*last, *late)]
    assert "\n".join(filter(None, wrong)) == ""
    assert crew.faults == []
    assert driver.said("stopping") == []
    assert await stage.stored() == len(crew.lives)
    assert weather.session not in [session.id for session in await stage.sessions()]


async def _publish(stage: Stage, draw: random.Random, crew: Crew, count: int) -> Sequence[str]:
    """Jobs whose handlers do not end before they are let go; returns their ids."""
    lives = {new_job_id(): drawn(draw, f"job {len(crew.lives) + n}") for n in range(count)}
    crew.lives.update(lives)
    rules = JobOptions(**RULES)
    await stage.truth.publish_many(
        stage.queue, [NewJob(life.name.ljust(crew.payload), id=job_id, options=rules) for job_id, life in lives.items()]
    )
    return list(lives)


async def _leaves(driver: Driver, *, by_signal: bool) -> None:
    if by_signal:
        driver.terminate()
        assert await driver.ends() == 0
    else:
        await driver.stop()


async def _all_is_well(stage: Stage, weather: Weather, crew: Crew) -> None:
    """The worker takes as many jobs as it has places, in the session that it has had all the time."""
    await stage.until(lambda: _holds(crew.full), lambda: _holds(f"{len(crew.running)} of {PLACES} handlers run"))
    assert crew.faults == []
    # Of an earlier wave one or another may just have ended.
    sessions = {(await stage.job(job_id)).session_id for job_id in crew.running} - {""}
    weather.session = weather.session or min(sessions)
    assert sessions == {weather.session}, "another session was opened beside the one that was to be resumed"


async def _holds(shown: Any) -> Any:
    return shown
