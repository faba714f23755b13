"""Features of texts and their labels, which `unfold drift` compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipelines.engine.data.ragged import Ragged
from pipelines.engine.export.digest import Measure
from pipelines.engine.tasks.comparable import Feature, Wording
from pipelines.engine.tasks.text_features import length_feature, token_features
from pipelines.sentiment.processor import TextClasses
from pipelines.sentiment.records import Record

#: What a server sees of a request, and of its answer if the text has one class.
_INPUTS = (
    Measure(name="characters", side="input", tensor="text", how="characters"),
    Measure(name="words", side="input", tensor="text", how="words"),
)
_ANSWERS = (
    Measure(name="label", side="output", tensor="label", how="category"),
    Measure(name="score", side="output", tensor="score", how="value"),
)


def measures(*, multi_label: bool) -> Sequence[Measure]:
    """Return what can be computed from requests and answers."""
    return _INPUTS if multi_label else (*_INPUTS, *_ANSWERS)


def features(
    processor: TextClasses,
    records: Sequence[Record],
    answer: Callable[[Ragged], np.ndarray] | None,
) -> dict[str, Feature]:
    """Return the features of texts and, if some have one, of labels.

    Args:
        processor: The processor of the run.
        records: The records; texts without a label have an empty one.
        answer: Returns the class numbers ``<int>[rows]`` that the model answers; None if a text
            may have several labels.
    """
    rows = processor.encode([r.text for r in records])
    found = {
        "tokens": length_feature(rows, "Texts", "words"),
        **token_features(rows, processor.tokenizer, "words"),
    }
    given = [[label for label in r.labels if label] for r in records]
    if any(given):
        labels = np.array([label for several in given for label in several])
        of = np.repeat(np.arange(len(given)), [len(several) for several in given])
        found["true_label"] = Feature(labels, Wording("Labels"), of if answer is None else None)
        if answer is not None:
            right = np.array(processor.labels)[answer(rows)][of] == labels
            found["correct"] = Feature(
                np.where(right, "right", "wrong"), Wording("Answers, by whether they are right,")
            )
    return found
