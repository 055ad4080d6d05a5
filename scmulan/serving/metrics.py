"""Figures of a server for Prometheus: requests, seconds, cells, jobs, what waits."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("scmulan_requests_total", "Requests answered", ["method", "route", "status"], registry=self.registry)
        buckets = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
        self._seconds = Histogram("scmulan_request_seconds", "Seconds to answer", ["route"], buckets=buckets, registry=self.registry)
        self.cells = Counter("scmulan_cells_total", "Cells that were answered about or written", ["task"], registry=self.registry)
        self.restarts = Counter("scmulan_vllm_restarts_total", "Times that vLLM was started again", registry=self.registry)

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A figure that is asked for when it is wanted."""
        Gauge(name, what, registry=self.registry).set_function(value)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)
