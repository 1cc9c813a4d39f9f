"""What Prometheus reads: calls, the broker's counts, the connection pool, and the process itself.

All of it lives in a registry of its own; nothing here is global. No label has values that clients choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobwire_server.broker.terms import BrokerStats

_STREAMS = frozenset({"QueueService/Subscribe", "Health/Watch", "ServerReflection/ServerReflectionInfo"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# What psycopg_pool counts, under names that say what it is; it resets nothing by itself.
_POOL_GAUGES = {
    "pool_size": "Connections in the pool.",
    "pool_available": "Connections in the pool that nobody uses.",
    "requests_waiting": "Calls that wait for a connection.",
}
_POOL_COUNTERS = {
    "requests_num": "Connections asked for.",
    "requests_queued": "Connections that had to be waited for.",
    "requests_errors": "Connections that were waited for in vain.",
    "connections_num": "Connections attempted.",
    "connections_errors": "Connections attempted in vain.",
    "connections_lost": "Connections found broken.",
}


class CallMetrics:
    """Counts gRPC calls; the names are those of gRPC's own conventions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        started = Counter("grpc_server_started", "Calls begun.", ["grpc_method"], registry=registry)
        handled = Counter("grpc_server_handled", "Calls ended.", ["grpc_method", "grpc_code"], registry=registry)
        seconds = Histogram(
            "grpc_server_handling_seconds",
            "How long calls took that are no streams.",
            ["grpc_method"],
            buckets=_SECONDS,
            registry=registry,
        )

        # A look at labels costs more than what is done with them. There are few: no client chooses any.
        self._started_of = cache(started.labels)
        self._handled_of = cache(handled.labels)
        self._seconds_of = cache(seconds.labels)

    def started(self, method: str) -> None:
        """Counts a call that has begun; `method` is `Service/Method`."""
        self._started_of(method).inc()

    def finished(self, method: str, code: str, seconds: float) -> None:
        """Counts a call that has ended with a status code."""
        self._handled_of(method, code).inc()
        if method not in _STREAMS:
            self._seconds_of(method).observe(seconds)


class _Looked(Collector):
    """Turns what others count by themselves into metrics, whenever somebody asks."""

    def __init__(self, broker: Callable[[], BrokerStats], pool: Callable[[], Mapping[str, int]]) -> None:
        self._broker = broker
        self._pool = pool

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        stats = self._broker()
        yield GaugeMetricFamily("jobwire_sessions", "Sessions of this replica.", stats.sessions)
        yield GaugeMetricFamily("jobwire_streams", "Open Subscribe streams.", stats.streams)
        yield GaugeMetricFamily("jobwire_in_flight", "Deliveries that are not settled.", stats.in_flight)
        yield GaugeMetricFamily("jobwire_waits", "GetJob calls that wait for a change.", stats.waits)
        yield GaugeMetricFamily("jobwire_publishing_bytes", "What Publish calls hold.", stats.publishing_bytes)
        pooled = "Whether a pooler stands before the database, so that signals are polled for."
        yield GaugeMetricFamily("jobwire_behind_pooler", pooled, stats.behind_pooler)
        families: dict[str, CounterMetricFamily] = {}
        for name, value in sorted(stats.counters.items()):
            # `acked.completed` is the kind `completed` of `acked`.
            base, _, kind = name.partition(".")
            if base not in families:
                labels = ["kind"] if kind else []
                families[base] = CounterMetricFamily(f"jobwire_{base}", f"What happened: {base}.", labels=labels)
            families[base].add_metric([kind] if kind else [], value)
        yield from families.values()
        pool = self._pool()
        for name, text in _POOL_GAUGES.items():
            yield GaugeMetricFamily(f"jobwire_pool_{name.removeprefix('pool_')}", text, pool.get(name, 0))
        for name, text in _POOL_COUNTERS.items():
            yield CounterMetricFamily(f"jobwire_pool_{name.removesuffix('_num')}", text, pool.get(name, 0))


def build_registry(broker: Callable[[], BrokerStats], pool: Callable[[], Mapping[str, int]]) -> CollectorRegistry:
    """A registry with the process's metrics and what `broker` and `pool` say when asked."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Looked(broker, pool))
    return registry
