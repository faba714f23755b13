"""Prometheus metrics of a server."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STEP_SECONDS = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.1, 1)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "unfold_requests",
            "Requests for a prediction, by their HTTP status.",
            ["model", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "unfold_request_seconds",
            "From the first byte of a request's body to its answer.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_rows = Histogram(
            "unfold_batch_rows",
            "Rows of a call of a model.",
            ["model"],
            buckets=_ROWS,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "unfold_requests_in_progress", "Requests being answered.", registry=self.registry
        )
        self.streams = Gauge("unfold_streams", "Open streams.", registry=self.registry)
        self.step_seconds = Histogram(
            "unfold_step_seconds",
            "From a message of a stream to its answer.",
            ["model"],
            buckets=_STEP_SECONDS,
            registry=self.registry,
        )
        self.version = Gauge(
            "unfold_model_version", "The newest version served.", ["model"], registry=self.registry
        )
        self.loads = Counter(
            "unfold_model_loads",
            "Versions loaded, and those that could not be.",
            ["model", "result"],
            registry=self.registry,
        )
