"""Pictures of explanations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipelines.engine.explain import plots
from pipelines.sentiment.task import TASK as SENTIMENT
from tests.support.explaining import untrained_sentiment


def test_picture_of_a_long_text_shows_the_busiest_steps() -> None:
    config, processor, model = untrained_sentiment()
    segment = SENTIMENT.explain(config, processor, model, "a " * 150).segments[0]
    curve = np.full(150, 0.5)
    curve[100:] = 0.9
    start = plots.busiest(replace(segment, curves={"good": curve}), segment.layers)
    assert start <= 100 < start + plots.STEPS
    assert 0 <= start <= 150 - plots.STEPS
    state = plots.busiest(replace(segment, curves={}), segment.layers)
    assert state == 0  # repeating one word changes the state most at the beginning


def test_labels_are_short_and_visible() -> None:
    assert [plots.label(t) for t in (" the", "\n", " ", "a b", "x" * 20)] == [
        "the", "⏎", "␣", "a␣b", "x" * 13 + "…"
    ]  # fmt: skip
