"""The window of the latest requests, and its metrics."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pipelines.engine.core import drift
from pipelines.engine.core.drift import Histogram
from pipelines.engine.export.digest import Digest, Measure, MeasuredHistogram
from pipelines.serving.drift import DriftCollector, DriftWindow
from pipelines.serving.json_codec import TensorSpec

TEXT, FLOAT = np.dtype(object), np.dtype(np.float32)
INPUTS = {"text": TensorSpec(TEXT, (None,))}
OUTPUTS = {"label": TensorSpec(TEXT, (None,)), "score": TensorSpec(FLOAT, (None,))}


def digest() -> Digest:
    rng = np.random.default_rng(0)
    words = rng.poisson(20, 500).astype(float)
    histograms = {
        ("words", "input", "text", "words"): Histogram.of_numbers(words),
        ("label", "output", "label", "category"): Histogram.of_categories(
            rng.choice(["yes", "no"], 500)
        ),
        ("score", "output", "score", "value"): Histogram.of_numbers(rng.uniform(0.5, 1, 500)),
    }  # fmt: skip
    measured = [
        MeasuredHistogram(
            measure=Measure(name=name, side=side, tensor=tensor, how=how), histogram=histogram
        )
        for (name, side, tensor, how), histogram in histograms.items()
    ]
    return Digest(
        split="validation",
        records=500,
        used=500,
        answered=500,
        features={},
        measured=tuple(measured),
    )


def window(requests: int = 1000) -> DriftWindow:
    found = DriftWindow.of(digest(), INPUTS, OUTPUTS, requests)
    assert found is not None
    return found


def request(rng: np.random.Generator, words: float, rows: int = 1) -> tuple[dict, dict]:
    texts = [b"secret " * int(rng.poisson(words)) for _ in range(rows)]
    labels = [str(x).encode() for x in rng.choice(["yes", "no"], rows)]
    scores = rng.uniform(0.5, 1, rows)
    return {"text": np.array(texts, object)}, {"label": np.array(labels, object), "score": scores}


def fill(
    found: DriftWindow, requests: int, words: float = 20, seed: int = 1, rows: int = 1
) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(requests):
        found.add(found.bins(*request(rng, words, rows)))


def test_requests_like_training_are_no_drift_and_others_are():
    found = window()
    fill(found, 600)
    assert {d.verdict for d in found.compare().values()} == {"none"}
    fill(found, 1000, words=60)
    verdicts = {name: d.verdict for name, d in found.compare().items()}
    assert verdicts == {"words": "much", "label": "none", "score": "none"}
    fill(found, 1000)  # what was is forgotten
    assert {d.verdict for d in found.compare().values()} == {"none"}


def test_a_window_counts_what_the_shared_arithmetic_counts():
    found = window()
    rng = np.random.default_rng(3)
    requests = [request(rng, 30, rows=3) for _ in range(40)]
    for inputs, outputs in requests:
        found.add(found.bins(inputs, outputs))
    words = np.array([len(t.split()) for i, _ in requests for t in i["text"]], float)
    reference = found.measured[0][1]
    assert found.compare()["words"] == drift.compare(reference, reference.count(words), 3)


@pytest.mark.parametrize("requests", [1, 5, 10, 37, 1000])
def test_a_window_holds_the_latest_requests_and_no_more(requests):
    found = window(requests)
    fill(found, requests)
    full = len(pickle.dumps(found))
    for _ in range(3):
        fill(found, requests // 2 + 3, words=2000, rows=4)
        assert 0.7 * requests <= found.counted <= requests
    assert len(pickle.dumps(found)) < full + 2000  # no longer text makes it larger


def test_a_window_of_nothing_has_no_metrics():
    assert window().compare() == {}
    assert DriftWindow.of(digest(), INPUTS, OUTPUTS, 0) is None
    assert DriftWindow.of(None, INPUTS, OUTPUTS, 100) is None


def test_features_that_the_signature_lacks_are_left_out():
    """A digest of another model, beside this one, must not make requests fail."""
    numbers = {"text": TensorSpec(FLOAT, (None,))}
    found = DriftWindow.of(digest(), numbers, OUTPUTS, 100)
    assert [measure.name for measure, _ in found.measured] == ["label", "score"]
    assert DriftWindow.of(digest(), numbers, {}, 100) is None


def test_the_metrics_have_numbers_and_no_texts():
    found = window()
    fill(found, 300, words=60)
    registry = CollectorRegistry()
    registry.register(DriftCollector(lambda: iter([("tickets", found)])))
    text = generate_latest(registry).decode()
    assert 'unfold_drift_window_requests{model="tickets"} 300.0' in text
    value = registry.get_sample_value("unfold_drift_psi", {"model": "tickets", "feature": "words"})
    assert value == found.compare()["words"].psi
    chance = registry.get_sample_value(
        "unfold_drift_psi_by_chance", {"model": "tickets", "feature": "words"}
    )
    assert 0 < chance < drift.MUCH < value
    assert "secret" not in text
