"""The standard health service, for each name it knows, through the life of a server."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from .conftest import Api, Serve
from .http_client import get
from .worker import Worker

NAMES = ("", "jobwire.v1.QueueService", "jobwire.v1.AdminService")
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


async def test_check(api: Api) -> None:
    for name in NAMES:
        assert await api.health_of(name) == "SERVING"


async def test_a_name_that_is_not_served(api: Api) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.health_of("jobwire.v1.Nonsense")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = api.health.Watch(HealthCheckRequest(service="jobwire.v1.Nonsense"))
    assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


async def test_not_serving_as_soon_as_a_drain_begins(serve: Serve) -> None:
    async with serve(drain_linger=30.0) as api:
        watches = [api.health.Watch(HealthCheckRequest(service=name)) for name in NAMES]
        assert [(await watch.read()).status for watch in watches] == [SERVING] * 3
        async with Worker(api) as worker:
            hurry = asyncio.Event()
            stopping = asyncio.create_task(api.server.stop(hurry))
            async with asyncio.timeout(10):
                assert [(await watch.read()).status for watch in watches] == [NOT_SERVING] * 3
            # Long before the server is gone: it still lingers for the last Acks.
            assert not stopping.done()
            for name in NAMES:
                assert await api.health_of(name) == "NOT_SERVING"
            readiness = await get(api.server, "/readyz")
            assert (readiness.status, readiness.json["reason"]) == (503, "this replica is about to stop")
            assert (await get(api.server, "/livez")).status == 200
            await worker.finish()
            hurry.set()
            await stopping
        for watch in watches:
            watch.cancel()
