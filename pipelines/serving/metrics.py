"""Prometheus metrics of a server."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from pipelines.serving import log
from pipelines.serving.errors import GRPC_CODES

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STEP_SECONDS = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.1, 1)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(_LogCollector())
        self.requests = Counter(
            "unfold_requests",
            "Requests for a prediction, by their HTTP status.",
            ["model", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "unfold_request_seconds",
            "From a request to its answer.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.registry.register(_TensorFlowServingCollector(self.requests, self.seconds))
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
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def record(self, model: str, status: int, seconds: float) -> None:
        """Count a request for a prediction.

        Args:
            model: The model's name; empty if there is no such model.
            status: The HTTP status of the answer.
            seconds: How long the answer took.
        """
        key = (model, status)
        if key not in self._children:  # looking up labels takes longer than counting
            counter = self.requests.labels(model, str(status))
            self._children[key] = (counter, self.seconds.labels(model))
        counter, histogram = self._children[key]
        counter.inc()
        histogram.observe(seconds)


class _LogCollector(Collector):
    """Tell how many lines of the log were dropped."""

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "unfold_log_lines_dropped",
            "Lines of the log that were not written, because nobody read them.",
            log.dropped_lines(),
        )


class _TensorFlowServingCollector(Collector):
    """Repeat the counts and times of requests under TensorFlow Serving's names."""

    def __init__(self, requests: Counter, seconds: Histogram) -> None:
        self._requests, self._seconds = requests, seconds

    def collect(self) -> Iterator[Metric]:
        count = Metric(":tensorflow:serving:request_count", "Requests, by status.", "untyped")
        latency = Metric(
            ":tensorflow:serving:request_latency", "Microseconds to the answer.", "histogram"
        )
        counts: dict[tuple[str, str], float] = {}
        for sample in _samples(self._requests, "_total"):
            status = int(sample.labels["status"])
            code = "OK" if status == 200 else GRPC_CODES.get(status, "INTERNAL")
            key = (sample.labels["model"], code)
            counts[key] = counts.get(key, 0) + sample.value
        for (model, code), value in counts.items():
            labels = {"model_name": model, "status": code}
            count.add_sample(count.name, labels, value)
        for suffix in ("_bucket", "_sum", "_count"):
            for sample in _samples(self._seconds, suffix):
                labels = {"model_name": sample.labels["model"]}
                if suffix == "_bucket":
                    labels["le"] = f"{float(sample.labels['le']) * 1e6:g}".replace("inf", "+Inf")
                value = sample.value * 1e6 if suffix == "_sum" else sample.value
                latency.add_sample(latency.name + suffix, labels, value)
        yield count
        yield latency


def _samples(metric: Counter | Histogram, suffix: str) -> list[Sample]:
    return [s for family in metric.collect() for s in family.samples if s.name.endswith(suffix)]
