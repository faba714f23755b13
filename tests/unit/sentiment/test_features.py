"""Features of texts and labels."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from pipelines.engine.core import drift
from pipelines.engine.data.ragged import Ragged
from pipelines.sentiment.config import SentimentTextConfig
from pipelines.sentiment.features import features
from pipelines.sentiment.processor import TextClasses
from pipelines.sentiment.records import LabelledText
from tests.support import reviews


def record(text: str, label: str = "") -> LabelledText:
    return LabelledText(text, label, "new.csv:1")


def never(rows: Ragged) -> np.ndarray:
    raise AssertionError("the model is not needed")


@pytest.fixture(scope="module")
def processor() -> TextClasses:
    config = SentimentTextConfig(min_count=1, max_tokens=6)
    return TextClasses.fit(config, ["a b c d e f", "a b a"], ["bad", "good"])


def test_texts_have_lengths_unknown_words_and_words(processor):
    found = features(processor, [record("a b new"), record("x"), record("")], never)
    assert found.keys() == {"tokens", "vocabulary", "unknown_words"}
    assert found["tokens"].values.tolist() == [3, 1, 0]
    np.testing.assert_allclose(found["unknown_words"].values, [1 / 3, 1])  # of texts with words
    words, texts = found["vocabulary"].values, found["vocabulary"].groups
    assert texts.tolist() == [0, 0, 0, 1]
    name = found["vocabulary"].wording.categories
    assert [name(str(w)) for w in words] == ["'a'", "'b'", "unknown ones", "unknown ones"]


def test_labels_are_compared_where_there_are_some(processor):
    records = [record("a", "good"), record("b"), record("c", "bad"), record("d", "other")]
    found = features(processor, records, lambda rows: np.array([1, 0, 1, 0]))
    assert found["true_label"].values.tolist() == ["good", "bad", "other"]
    assert found["correct"].values.tolist() == ["right", "wrong", "wrong"]


def read(path) -> list[LabelledText]:
    with path.open(encoding="utf-8") as file:
        return [record(row["text"], row["label"]) for row in csv.DictReader(file)]


def test_other_samples_of_the_same_texts_are_no_drift(tmp_path):
    """Over several seeds no feature is said to have moved."""
    train, old = (
        read(reviews.write_reviews(tmp_path / f"{name}.csv", rows, seed=rows))
        for name, rows in (("train", 1000), ("old", 1200))
    )
    config = SentimentTextConfig(vocabulary=200)
    processor = TextClasses.fit(config, [r.text for r in train], ["negative", "positive"])

    def answer(rows: Ragged) -> np.ndarray:
        return np.random.default_rng(len(rows)).integers(0, 2, len(rows))

    def of(records: list[LabelledText]) -> dict:
        return features(processor, records, answer)

    reference = {name: feature.histogram() for name, feature in of(old).items()}
    for seed in range(8):
        for name, feature in of(
            read(reviews.write_reviews(tmp_path / "new.csv", 900, seed))
        ).items():
            histogram = reference[name]
            found = drift.compare(histogram, histogram.count(feature.values), len(reference))
            assert found.verdict == "none", (seed, name, found)
