"""How far the latest requests of a model are from what it saw in training.

The digest in an export has histograms of requests and answers as they were in training. A window
counts the latest requests in the same bins, and nothing else of them is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pipelines.engine.core import drift
from pipelines.engine.core.drift import Drift, Histogram
from pipelines.engine.export.digest import Digest, Measure
from pipelines.serving.json_codec import Arrays, TensorSpec

#: Parts of a window; the oldest is dropped when the newest is full.
_PARTS = 10
#: What can only be computed from text.
_OF_TEXT = frozenset({"characters", "words", "bytes", "category"})

#: The bins of the rows of a request, for each feature.
Bins = list[list[int]]


@dataclass
class _Part:
    """Counts of some requests, by feature and bin."""

    counts: list[list[int]]
    requests: int = 0


@dataclass
class DriftWindow:
    """Counts of the latest requests of a version, in the bins of its digest.

    Its size does not depend on the requests: a few kilobytes.

    Attributes:
        measured: What is computed from requests and answers, and its distribution in training.
        requests: Number of requests that the window holds.
    """

    measured: list[tuple[Measure, Histogram]]
    requests: int
    _parts: deque[_Part] = field(init=False)

    def __post_init__(self) -> None:
        self._parts = deque(maxlen=min(_PARTS, self.requests))

    @classmethod
    def of(
        cls,
        digest: Digest | None,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        requests: int,
    ) -> DriftWindow | None:
        """Return an empty window; None if there is nothing to compare.

        Args:
            digest: The digest of the export, if it has one.
            inputs: The inputs of ``serving_default``.
            outputs: Its outputs.
            requests: Number of requests that the window holds; 0 for none.
        """
        if digest is None or not requests:
            return None
        specs = {"input": inputs, "output": outputs}
        fitting = [
            (one.measure, one.histogram)
            for one in digest.measured
            if (spec := specs[one.measure.side].get(one.measure.tensor)) is not None
            and spec.is_text == (one.measure.how in _OF_TEXT)
            and (one.measure.how == "category") == (one.histogram.edges is None)
        ]
        return cls(fitting, requests) if fitting else None

    def bins(self, inputs: Arrays, outputs: Arrays) -> Bins:
        """Return the bins of the rows of a request; a thread may call it, as it changes nothing."""
        return [
            [b for value in measure.of(inputs, outputs) if (b := histogram.bin(value)) is not None]
            for measure, histogram in self.measured
        ]

    def add(self, bins: Bins) -> None:
        """Count a request."""
        if not self._parts or self._parts[-1].requests >= max(self.requests // _PARTS, 1):
            self._parts.append(_Part([[0] * len(h.counts) for _, h in self.measured]))
        part = self._parts[-1]
        part.requests += 1
        for counts, found in zip(part.counts, bins, strict=True):
            for b in found:
                counts[b] += 1

    @property
    def counted(self) -> int:
        """Number of requests in the window."""
        return sum(part.requests for part in self._parts)

    def compare(self) -> dict[str, Drift]:
        """Compare the window with training; without features that no request had."""
        found = {}
        for i, (measure, histogram) in enumerate(self.measured):
            counts = np.sum([part.counts[i] for part in self._parts], axis=0)
            if np.any(counts):
                found[measure.name] = drift.compare(histogram, counts, len(self.measured))
        return found


class DriftCollector(Collector):
    """The drift of each model as Prometheus metrics, compared when they are read."""

    def __init__(self, windows: Callable[[], Iterator[tuple[str, DriftWindow]]]) -> None:
        """Collect from the windows that a function yields with the names of their models."""
        self._windows = windows

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "feature"]
        index = GaugeMetricFamily(
            "unfold_drift_psi",
            "Population stability index of the latest requests beside training.",
            labels=labels,
        )
        chance = GaugeMetricFamily(
            "unfold_drift_psi_by_chance",
            "What unfold_drift_psi is below by chance if nothing has changed.",
            labels=labels,
        )
        requests = GaugeMetricFamily(
            "unfold_drift_window_requests",
            "Latest requests that unfold_drift_psi is computed from.",
            labels=["model"],
        )
        for model, window in self._windows():
            requests.add_metric([model], window.counted)
            for feature, found in window.compare().items():
                index.add_metric([model, feature], found.psi)
                chance.add_metric([model, feature], found.noise)
        yield from (index, chance, requests)
