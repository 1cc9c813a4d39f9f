"""Scenarios in which something is wrong, and the client is to say what, where, and what to do."""

from __future__ import annotations

import asyncio
import signal
import urllib.error
import urllib.request
from typing import Any

import pytest

from jobwire import new_job_id
from jobwire.v1 import queue_service_pb2 as pb
from tests.client.scripted_server import delivery
from tests.conformance.another_worker import AnotherWorker
from tests.conformance.driver import Driver, Refused
from tests.conformance.odd_servers import UNKNOWN_ENUM, newer, not_jobwire, older, unknown_field, with_unknown
from tests.conformance.scenario import scenario
from tests.conformance.servers import HOST, TOKEN
from tests.conformance.stage import Stage
from tests.system.conftest import ServerProcess, free_port

SOON = 8.0
"""The timeout of calls that cannot succeed, in seconds."""


@scenario
async def bad_token(stage: Stage) -> None:
    """Without the right token a call and a worker end at once with UNAUTHENTICATED; with it both work, also without
    TLS.
    """
    server = await stage.servers.with_tokens()
    for connect in ({}, {"token": "wrong"}):
        driver = await stage.unconnected()
        # Not repeated: that would take as long as the timeout, which is longer than this scenario waits.
        await driver.connect(server.address, timeout=10 * stage.patience, **connect)
        with pytest.raises(Refused) as refused:
            await driver.publish(stage.queue, {"data": 1})
        assert (refused.value.code, refused.value.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        await driver.work(stage.queue)
        error = (await driver.hears("worker_ended"))["error"]
        assert (error["code"], error["reason"]) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        assert error["message"] == refused.value.message
    await _works(stage, await stage.driver(server.address, token=TOKEN))


@scenario
async def tls(stage: Stage) -> None:
    """A client that trusts the server's authority publishes and works over TLS; one that trusts another says that TLS
    may be wrong.
    """
    server = await stage.servers.with_tls()
    trust = stage.servers.trust
    target = f"{HOST}:{server.port}"
    await _works(stage, await stage.driver(target, ca_file=str(trust.right), token=TOKEN))
    await _cannot_reach(stage, target, ca_file=str(trust.wrong), token=TOKEN)


@scenario
async def no_tls(stage: Stage) -> None:
    """A client that speaks TLS to a server without it, or the other way round, says within seconds that TLS may be
    wrong.
    """
    server = await stage.servers.with_tls()
    await _cannot_reach(stage, f"{HOST}:{stage.server.port}", ca_file=str(stage.servers.trust.right))
    await _cannot_reach(stage, f"{HOST}:{server.port}", token=TOKEN)


@scenario
async def wrong_port(stage: Stage) -> None:
    """Where nothing listens, or something else than gRPC does, a call and a worker say within seconds where, and what
    to check.
    """
    await _cannot_reach(stage, f"127.0.0.1:{free_port()}")
    await _cannot_reach(stage, f"127.0.0.1:{stage.server.http_port}")


async def _works(stage: Stage, driver: Driver) -> None:
    """It publishes, gets and completes a job."""
    [published] = await driver.publish(stage.queue, {"data": "by the driver"})
    await driver.work(stage.queue)
    await driver.started(published["job_id"])
    await driver.complete(published["job_id"], "done")
    await stage.completed(published["job_id"], "done")
    assert (await driver.get(stage.queue, published["job_id"]))["state"] == "completed"
    await driver.stop()


async def _cannot_reach(stage: Stage, target: str, **connect: Any) -> None:
    """A call says so within its time, and a worker says it too: as a warning if it keeps trying, else as it ends."""
    driver = await stage.driver(target, timeout=SOON, **connect)
    with pytest.raises(Refused) as refused:
        await driver.publish(stage.queue, {"data": 1})
    assert refused.value.code == "UNAVAILABLE"
    await driver.work(stage.queue)
    told = await driver.hears_any("warning", "worker_ended")
    for message in (refused.value.message, told.get("message") or told["error"]["message"]):
        assert f"cannot reach Jobwire at {target}" in message
        assert "is it running there, and are address and TLS right?" in message


@scenario
async def older_server(stage: Stage) -> None:
    """A call that the server does not know ends at once, and a worker too, with the advice to look whether it is
    Jobwire and new enough.
    """
    async with not_jobwire() as target:
        driver = await stage.driver(target, timeout=10 * stage.patience)
        with pytest.raises(Refused) as refused:
            await driver.publish(stage.queue, {"data": 1})
        _names_the_age(target, refused.value.code, refused.value.message)
        await driver.work(stage.queue)
        error = (await driver.hears("worker_ended"))["error"]
        _names_the_age(target, error["code"], error["message"])
    async with older() as target:
        driver = await stage.driver(target, timeout=10 * stage.patience)
        [published] = await driver.publish(stage.queue, {"data": 1})
        assert published["created"]
        with pytest.raises(Refused) as refused:
            await driver.get(stage.queue, published["job_id"])
        _names_the_age(target, refused.value.code, refused.value.message)


def _names_the_age(target: str, code: str, message: str) -> None:
    assert code == "UNIMPLEMENTED"
    assert f"the server at {target} does not know this call" in message
    assert "is it Jobwire, and as new as this client?" in message


@scenario
async def newer_server(stage: Stage) -> None:
    """Events, fields and enum values that are newer than the client are passed over, and everything else goes on."""
    server = newer()
    stage.at_the_end(server.stop)
    await server.start()
    driver = await stage.driver(server.address)
    kept, stored = await driver.publish(stage.queue, {"data": 1}, {"data": 2})
    assert (kept["created"], stored["created"]) == (False, True)
    job = await driver.get(stage.queue, new_job_id())
    assert (job["attempt"], job["output"]) == (3, [1])

    await driver.work(stage.queue, concurrency=2)
    stream = await server.stream()
    await stream.open(unknown=unknown_field())
    await stream.send(unknown=unknown_field())
    await stream.send(cancellation=pb.Cancellation(handle="h-0", reason=UNKNOWN_ENUM))
    first, second = (with_unknown(delivery(handle, f'"{handle}"', queue=stage.queue)) for handle in ("h-1", "h-2"))
    await stream.send(deliveries=pb.Deliveries(deliveries=[first, second]), unknown=unknown_field())
    assert (await driver.started(first.job_id))["data"] == "h-1"
    assert (await driver.started(second.job_id))["data"] == "h-2"
    # For an unknown reason too, a handler is told to stop.
    await stream.send(cancellation=pb.Cancellation(handle="h-2", job_id=second.job_id, reason=UNKNOWN_ENUM))
    await driver.hears("stopping", job_id=second.job_id)
    await server.settled("h-2")
    await driver.complete(first.job_id, "done")
    assert (await server.settled("h-1")).complete.output == '"done"'
    sequence = await stream.send(heartbeat=pb.Heartbeat(), unknown=unknown_field())
    await server.ack(lambda ack: ack.last_sequence >= sequence)
    # In order, though no answer to an Ack was one that it knows.
    await driver.stop()
    assert (await driver.hears("worker_ended"))["error"] is None


@scenario
async def draining_server(stage: Stage) -> None:
    """A call to a server that drains succeeds or says why not; a worker says why it gets no stream, and works when the
    server is back.
    """
    server = await stage.own_server(drain_linger=60, drain_timeout=120)
    # A server lingers for those who had a stream.
    async with AnotherWorker(server.address, f"{stage.queue}-other"):
        await stage.until(lambda: stage.sessions(f"{stage.queue}-other"))
        server.send(signal.SIGTERM)
        await stage.until(lambda: _drains(server))
        driver = await stage.driver(server.address, timeout=SOON)
        [published] = await driver.publish(stage.queue, {"data": "while it drains", "start_in": 3600})
        assert published["created"]
        await driver.work(stage.queue)
        assert "about to stop" in (await driver.hears("warning"))["message"]
    server.kill()
    await asyncio.to_thread(server.start)
    [job_id] = await stage.publish("when it is back")
    await driver.started(job_id)
    await driver.complete(job_id, "done")
    await stage.completed(job_id, "done")
    assert driver.said("worker_ended") == []
    await driver.stop()


async def _drains(server: ServerProcess) -> bool:
    try:
        await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{server.http_port}/readyz", timeout=5)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 503
    return False


@scenario
async def gone_server(stage: Stage) -> None:
    """When the server is gone a call says so within its time, and one with enough time succeeds when it is back; so
    does the worker.
    """
    server = await stage.own_server()
    driver = await stage.driver(server.address, timeout=SOON)
    await driver.publish(stage.queue, {"data": "all is well", "start_in": 3600})
    server.kill()
    with pytest.raises(Refused) as refused:
        await driver.publish(stage.queue, {"data": "nobody is there"})
    assert refused.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert f"Jobwire at {server.address}" in refused.value.message
    await driver.connect(server.address, timeout=stage.patience)
    await driver.work(stage.queue)
    await driver.hears("warning")
    publishing = asyncio.create_task(driver.publish(stage.queue, {"data": "while it is away"}))
    await asyncio.to_thread(server.start)
    [published] = await publishing
    await driver.started(published["job_id"])
    await driver.complete(published["job_id"], "done")
    await stage.completed(published["job_id"], "done")
    await driver.stop()
