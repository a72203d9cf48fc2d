"""Prometheus metrics: what the server did, and the state of its engine."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from time import perf_counter
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..chat.protocols import ServingEngine

T = TypeVar("T")
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
_GAUGES = {
    "num_running": "requests in the batch",
    "num_waiting": "requests that wait for it",
    "pages_used": "pages of keys and values that running requests hold",
    "pages_free": "pages that none holds",
    "pages_cached": "free pages that keep a prefix",
}
_COUNTERS = {
    "prompt_tokens_computed": "prompt tokens fed to the model",
    "prompt_tokens_reused": "prompt tokens whose keys and values were there already",
    "generated_tokens": "tokens sampled",
    "num_preemptions": "times a running request gave up its pages",
}


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self, engine: ServingEngine) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "verigym_requests", "requests by route and status", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "verigym_request_seconds",
            "from a request's arrival to the end of its answer",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_EngineCollector(engine))

    def count(self, route: str, status: int) -> None:
        """Note a request; status 499 stands for a client that left."""
        self._requests.labels(route, str(status)).inc()

    def time(self, route: str, started: float) -> None:
        """Note that an answer has ended now. ``started``: of ``perf_counter``."""
        self._seconds.labels(route).observe(perf_counter() - started)

    async def timed(self, route: str, started: float, events: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """A stream as it is, whose end is the answer's end."""
        try:
            async for event in events:
                yield event
        finally:
            self.time(route, started)

    def render(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """Reads the engine's counts when it is asked."""

    def __init__(self, engine: ServingEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats()
        for name, told in _GAUGES.items():
            yield GaugeMetricFamily(f"verigym_engine_{name}", told, value=getattr(stats, name))
        for name, told in _COUNTERS.items():
            yield CounterMetricFamily(f"verigym_engine_{name}", told, value=getattr(stats, name))
        yield GaugeMetricFamily(
            "verigym_engine_policy_version", "version of the weights", value=self._engine.policy_version
        )
