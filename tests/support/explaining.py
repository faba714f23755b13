"""Sentiment models whose explanations are known: untrained, or with gates set by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipelines.engine.explain.explanation import Explanation, Segment
from pipelines.sentiment.config import SentimentConfig, SentimentTextConfig
from pipelines.sentiment.processor import TextClasses
from pipelines.sentiment.task import TASK as SENTIMENT

VOCABULARY = ["film", "good", "bad", "wipe", "the", "a", "was", "and", "plot", "end"]
#: exp(−SATURATING) underflows in float32, so σ(±SATURATING) is exactly 1 or 0.
SATURATING = 200.0


def text_classes(max_tokens: int | None = None, keep: str = "ends") -> TextClasses:
    """A processor with a small vocabulary and two classes."""
    config = SentimentTextConfig(min_count=1, max_tokens=max_tokens, keep=keep)
    return TextClasses(config, VOCABULARY, ["bad", "good"])


def untrained_sentiment(**model: Any) -> tuple[SentimentConfig, TextClasses, Any]:
    """Config, processor and untrained model, with some keys of the config's ``model`` section."""
    config = SentimentConfig.model_validate(
        {
            "data": {"source": "none.csv"},
            "model": {"units": [5], "embedding": 4, **model},
            "train": {"buckets": 2},
        }
    )
    return config, text_classes(), SENTIMENT.build(config, text_classes())


class Reader:
    """An untrained bidirectional model that reads texts."""

    def __init__(self) -> None:
        self.config, self.processor, self.model = untrained_sentiment(bidirectional=True)

    def read(self, text: str, processor: TextClasses | None = None) -> Segment:
        """Explain the reading of a text."""
        explanation = SENTIMENT.explain(self.config, processor or self.processor, self.model, text)
        return explanation.segments[0]


class HandSet(NamedTuple):
    """An LSTM with known gates, and its explanation of a text.

    Attributes:
        explanation: of the text.
        expected: the values of unit 0 by quantity, one per word.
        trace: the layer's own trace of the text.
        words: of the text.
    """

    explanation: Explanation
    expected: dict[str, list[Any]]
    trace: dict[str, Any]
    words: list[str]


def hand_set_lstm() -> HandSet:
    """An LSTM of two units whose gates are known at every word.

    Unit 0 writes +1 at "good" and −1 at "bad", forgets at "wipe", and shows its state at "end".
    Unit 1 never writes.
    """
    config, processor, model = untrained_sentiment(units=[2], embedding=12)
    ids = {word: i for i, word in enumerate(VOCABULARY, 2)}
    model.get_layer("embedding").set_weights([np.eye(12)])
    i, f, g, o = range(0, 8, 2)
    U, W, b = np.zeros((12, 8)), np.zeros((2, 8)), np.zeros(8)
    b[[i, i + 1, o, o + 1]], b[[f, f + 1]] = -SATURATING, SATURATING
    for word, sign in (("good", 1), ("bad", -1)):
        U[ids[word], i], U[ids[word], g] = 2 * SATURATING, sign * SATURATING
    U[ids["wipe"], f] = -2 * SATURATING
    U[ids["end"], o] = 2 * SATURATING
    layer = model.get_layer("recurrent_1")
    layer.set_weights([U, W, b])
    text = "the good film bad bad wipe good end a end"
    words = text.split()
    expected = {
        "input_gate": [w in ("good", "bad") for w in words],
        "forget_gate": [w != "wipe" for w in words],
        "output_gate": [w == "end" for w in words],
        "candidate": [{"good": 1, "bad": -1}.get(w, 0) for w in words],
        "cell_state": [0, 1, 1, 0, -1, 0, 1, 1, 1, 1],
    }
    one_hot = np.eye(12, dtype="float32")[[ids[w] for w in words]][None]
    explanation = SENTIMENT.explain(config, processor, model, text)
    return HandSet(explanation, expected, layer.trace(one_hot), words)
