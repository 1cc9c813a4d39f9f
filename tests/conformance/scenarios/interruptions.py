"""Scenarios in which the connection or the server goes away while a handler runs."""

from __future__ import annotations

import asyncio
import signal

from jobwire import JobState
from tests.chaos.proxy import Proxy
from tests.conformance.driver import Driver
from tests.conformance.scenario import scenario
from tests.conformance.stage import Stage


@scenario
async def resume_after_cut(stage: Stage) -> None:
    """A handler that runs while the connection breaks goes on, and its end counts, whether it comes during the break
    or after it.
    """
    proxy = await stage.proxy()
    driver = await stage.driver(proxy.address)
    await driver.work(stage.queue, concurrency=3)
    during, answer_lost, after = await stage.publish("ends during the break", "its answer is lost", "ends after it")
    await driver.hears_all("started", 3)
    attempts = [(await driver.started(job_id))["attempt"] for job_id in (during, answer_lost)]
    # The server takes the end of the second, and its answer goes nowhere.
    trap = proxy.freeze_answers_on(b"the answer to this is lost")
    await driver.complete(answer_lost, "the answer to this is lost")
    await stage.completed(answer_lost, "the answer to this is lost")
    assert trap.sprung.is_set()
    proxy.refuse()
    proxy.cut()
    proxy.thaw()
    await driver.complete(during, "during")
    await stage.until(lambda: _refused(proxy))
    proxy.heal()
    await stage.completed(during, "during")
    proxy.cut()
    await _goes_on(stage, driver, after)
    assert len(driver.said("started", job_id=during)) == len(driver.said("started", job_id=answer_lost)) == 1
    assert [(await stage.job(job_id)).attempt for job_id in (during, answer_lost)] == attempts


async def _refused(proxy: Proxy) -> bool:
    return proxy.refused > 0


@scenario
async def resume_elsewhere(stage: Stage) -> None:
    """A handler whose replica cannot be reached any more goes on, and its worker resumes at another replica."""
    proxy = await stage.proxy()
    driver = await stage.driver(proxy.address)
    await driver.work(stage.queue, concurrency=2)
    [held] = await stage.publish("held")
    await driver.started(held)
    proxy.lead_to("127.0.0.1", stage.second.port)
    proxy.cut()
    await _goes_on(stage, driver, held)


@scenario
async def peer_vanishes(stage: Stage) -> None:
    """A handler whose connection goes dead without a word is not disturbed: its worker resumes over a new one, and Acks
    that went nowhere come again.
    """
    proxy = await stage.proxy()
    driver = await stage.driver(proxy.address)
    # Handlers are to stop after 20 s of silence, and the server ends the session after three heartbeats: whoever first
    # waits for what the keepalive finds out comes too late for both.
    await driver.work(stage.queue, concurrency=3, heartbeat_interval=10)
    held, ended = await stage.publish("held", "ends meanwhile")
    await driver.hears_all("started", 2)
    # Some gRPC pings when it has received something, to measure the line: all is quiet when that is answered.
    await asyncio.sleep(1)
    # The old connections stay as they are, to both ends.
    proxy.forget()
    proxy.lead_to("127.0.0.1", stage.second.port)
    connections = proxy.connections
    await driver.complete(ended, "meanwhile")
    await stage.until(lambda: _connected_again(proxy, connections), lambda: _said("no other connection was made"))
    await stage.completed(ended, "meanwhile")
    await _goes_on(stage, driver, held)
    assert len(driver.said("started", job_id=ended)) == 1


async def _connected_again(proxy: Proxy, connections: int) -> bool:
    return proxy.connections > connections


async def _said(what: str) -> str:
    return what


@scenario
async def drain(stage: Stage) -> None:
    """A handler that runs through a deploy of the server is not disturbed, and its end counts."""
    server = await stage.own_server(drain_linger=0.5)
    driver = await stage.driver(server.address)
    await driver.work(stage.queue, concurrency=2)
    [held] = await stage.publish("held")
    await driver.started(held)
    server.send(signal.SIGTERM)
    assert await asyncio.to_thread(server.ends) == 0
    await asyncio.to_thread(server.start)
    await _goes_on(stage, driver, held)


@scenario
async def server_restart(stage: Stage) -> None:
    """A handler that runs through a crash of the server is not disturbed, and its end counts, also if it comes while
    the server is down.
    """
    # However long the start takes, nobody gives the session up: neither the other replicas nor the worker itself.
    server = await stage.own_server(owner_grace=600)
    driver = await stage.driver(server.address)
    await driver.work(stage.queue, concurrency=2, heartbeat_interval=60)
    held, ended = await stage.publish("held", "ends meanwhile")
    await driver.started(held)
    await driver.started(ended)
    server.kill()
    await driver.complete(ended, "meanwhile")
    await asyncio.to_thread(server.start)
    await stage.completed(ended, "meanwhile")
    await _goes_on(stage, driver, held)
    assert len(driver.said("started", job_id=ended)) == 1


async def _goes_on(stage: Stage, driver: Driver, held: str) -> None:
    """The handler that ran all the time still does, its end counts, and the worker takes the next job and stops in
    order.
    """
    [following] = await stage.publish("next")
    # With a place left, the next job comes only through a new stream.
    await driver.started(following)
    job = await stage.job(held)
    assert (job.state, job.attempt) == (JobState.ACTIVE, (await driver.started(held))["attempt"])
    assert len(await stage.sessions()) == 1, "another session was opened beside the one that was to be resumed"
    for job_id in (held, following):
        await driver.complete(job_id, f"end of {job_id}")
    await stage.completed(held, f"end of {held}")
    await stage.completed(following, f"end of {following}")
    assert len(driver.said("started", job_id=held)) == len(driver.said("started", job_id=following)) == 1
    assert driver.said("stopping") == []
    await driver.stop()
    assert (await driver.hears("worker_ended"))["error"] is None
