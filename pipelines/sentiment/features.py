"""Features of texts and their labels, which `unfold drift` compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipelines.engine.data.ragged import Ragged
from pipelines.engine.export.digest import Measure
from pipelines.engine.tasks.comparable import Feature, Wording
from pipelines.engine.tasks.text_features import length_feature, token_features
from pipelines.sentiment.processor import TextClasses
from pipelines.sentiment.records import LabelledText

#: What a server sees of a request and its answer.
MEASURES = (
    Measure(name="characters", side="input", tensor="text", how="characters"),
    Measure(name="words", side="input", tensor="text", how="words"),
    Measure(name="label", side="output", tensor="label", how="category"),
    Measure(name="score", side="output", tensor="score", how="value"),
)


def features(
    processor: TextClasses,
    records: Sequence[LabelledText],
    answer: Callable[[Ragged], np.ndarray],
) -> dict[str, Feature]:
    """Return the features of texts and, if some have one, of labels.

    Args:
        processor: The processor of the run.
        records: The records; texts without a label have an empty one.
        answer: Returns the class numbers ``<int>[rows]`` that the model answers.
    """
    rows = processor.encode([r.text for r in records])
    found = {
        "tokens": length_feature(rows, "Texts", "words"),
        **token_features(rows, processor.tokenizer, "words"),
    }
    labels = np.array([r.label for r in records])
    known = labels != ""
    if known.any():
        right = np.array(processor.labels)[answer(rows)] == labels
        found["true_label"] = Feature(labels[known], Wording("Labels"))
        found["correct"] = Feature(
            np.where(right, "right", "wrong")[known], Wording("Answers, by whether they are right,")
        )
    return found
