"""HTTP beside gRPC: probes for platforms that know nothing else, and metrics that Prometheus reads."""

from __future__ import annotations

import pytest

from jobwire.v1.queue_service_pb2 import AckItem, Complete, Fail, JobSpec, PublishRequest

from .conftest import Api, Serve
from .http_client import get, metrics
from .refusals import refused
from .worker import Worker, publish


@pytest.mark.parametrize(("path", "status"), [("/livez", "alive"), ("/readyz", "ready")])
async def test_probes(api: Api, path: str, status: str) -> None:
    answer = await get(api.server, path)
    assert (answer.status, answer.json) == (200, {"status": status})
    assert answer.headers["content-type"] == "application/json"
    assert "server" not in answer.headers
    head = await get(api.server, path, "HEAD")
    assert (head.status, head.body) == (200, "")


async def test_other_paths_and_methods(api: Api) -> None:
    for path in ("/", "/livez/x", "/admin", "/metrics/../livez", "/%00"):
        assert (await get(api.server, path)).status == 404
    for method in ("POST", "DELETE"):
        assert (await get(api.server, "/readyz", method)).status == 405


async def test_metrics_are_what_prometheus_reads(api: Api) -> None:
    answer = await get(api.server, "/metrics")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    seen = await metrics(api.server)
    for name, kind in {
        "jobwire_sessions": "gauge",
        "jobwire_streams": "gauge",
        "jobwire_in_flight": "gauge",
        "jobwire_waits": "gauge",
        "jobwire_pool_size": "gauge",
        "jobwire_pool_requests": "counter",
        "grpc_server_started": "counter",
        "grpc_server_handled": "counter",
        "grpc_server_handling_seconds": "histogram",
        "process_resident_memory_bytes": "gauge",
    }.items():
        assert seen.families[name].type == kind
        assert seen.families[name].documentation


async def test_counters_and_gauges_move(serve: Serve) -> None:
    publish_ok = {"grpc_method": "QueueService/Publish", "grpc_code": "OK"}
    publish_bad = {**publish_ok, "grpc_code": "INVALID_ARGUMENT"}
    async with serve() as api:
        await publish(api, 3)
        await publish(api, 2)
        await refused(api.queue.Publish(PublishRequest(queue="a b", jobs=[JobSpec()])))
        async with Worker(api, max_in_flight=4) as worker:
            first, second, *_ = await worker.receive(4)
            during = await metrics(api.server)
            assert during("jobwire_published_total") == 5
            assert during("grpc_server_handled_total", **publish_ok) == 2
            assert during("grpc_server_handled_total", **publish_bad) == 1
            assert during("grpc_server_started_total", grpc_method="QueueService/Publish") == 3
            assert during("grpc_server_handling_seconds_count", grpc_method="QueueService/Publish") == 3
            assert during("grpc_server_started_total", grpc_method="QueueService/Subscribe") == 1
            assert during("jobwire_sessions") == during("jobwire_streams") == 1
            assert during("jobwire_in_flight") == 4
            await worker.ack(AckItem(handle=first.handle, complete=Complete()))
            await worker.ack(AckItem(handle=first.handle, complete=Complete()))
            await worker.ack(AckItem(handle=second.handle, fail=Fail(permanent=True)))
            await worker.receive(5)
            after = await metrics(api.server)
            assert after("jobwire_in_flight") == 3
            assert after("jobwire_acked_total", kind="complete") == 1
            assert after("jobwire_acked_total", kind="already_applied") == 1
            assert after("jobwire_acked_total", kind="fail") == 1
            await worker.report(close_session=True)
            await worker.finish()
        closed = await metrics(api.server)
        assert closed("jobwire_sessions") == closed("jobwire_streams") == closed("jobwire_in_flight") == 0
        ended = {"grpc_method": "QueueService/Subscribe", "grpc_code": "OK"}
        assert closed("grpc_server_handled_total", **ended) == 1
        # A stream's length would drown the calls' in the histogram.
        assert closed("grpc_server_handling_seconds_count", grpc_method="QueueService/Subscribe") == 0


async def test_no_label_comes_from_clients(api: Api) -> None:
    await publish(api, queue="chosen-by-a-client")
    for method in ("/jobwire.v1.QueueService/Surprise", "/surprise.Service/Method"):
        with pytest.raises(Exception, match="Method not found"):
            await api.channel.unary_unary(method)(b"")
    text = (await get(api.server, "/metrics")).body.lower()
    assert "chosen-by-a-client" not in text and "surprise" not in text
