"""Texts with any number of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.special import expit

from pipelines.engine.data.ragged import Ragged
from pipelines.engine.tasks.base import Evaluation, Prediction, shorten
from pipelines.engine.training.loop import Objective
from pipelines.engine.training.losses import LabelCrossentropy, LabelCrossentropyMean
from pipelines.sentiment import label_evaluation
from pipelines.sentiment.calibration import Calibration
from pipelines.sentiment.labelling import Labelling
from pipelines.sentiment.processor import TextClasses
from pipelines.sentiment.records import MultiLabelText

#: What a table says where a text has no label.
NONE = "(none)"
#: The threshold of a label that no validation text has, and of a model without calibration.
_HALF = 0.5


class MultiLabel(Labelling):
    """The labels do not exclude each other: a sigmoid and a threshold for each.

    The threshold of a label is the one with the highest F1 on the validation split.
    """

    def objective(self, processor: TextClasses) -> Objective:
        return Objective(
            loss=LabelCrossentropy(),
            metrics=lambda: [LabelCrossentropyMean()],
            # Not F1: at one half it is 0 for as long as a rare label is never likely.
            monitor="val_cross_entropy",
            higher_is_better=False,
        )

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        found: np.ndarray = expit(logits)
        return found

    def losses(self, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
        found: np.ndarray = (np.logaddexp(0, logits) - targets * logits).mean(axis=-1)
        return found

    def outcomes(self, classes: int) -> int:
        return 2

    def hot(self, targets: np.ndarray | Ragged, classes: int) -> np.ndarray:
        assert isinstance(targets, Ragged)
        found = np.zeros((len(targets), classes))
        found[np.repeat(np.arange(len(targets)), targets.lengths), targets.values - 1] = 1
        return found

    def choose_thresholds(self, probabilities: np.ndarray, hot: np.ndarray) -> list[float] | None:
        return [best_f1_threshold(p, t) for p, t in zip(probabilities.T, hot.T, strict=True)]

    def answer(
        self, labels: Sequence[str], calibration: Calibration
    ) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        names, thresholds = tf.constant(labels), tf.constant(_thresholds(labels, calibration))

        def answer(logits: tf.Tensor) -> dict[str, tf.Tensor]:
            scores = tf.sigmoid(logits)
            given = scores >= thresholds
            # The given ones first, the most likely before the others.
            order = tf.argsort(
                tf.where(given, scores, -1.0), axis=-1, direction="DESCENDING", stable=True
            )
            sorted_names = tf.gather(names, order)
            is_given = tf.gather(given, order, axis=-1, batch_dims=1)
            found = tf.where(is_given, sorted_names, tf.constant(""))
            return {"labels": found, "probabilities": scores}

        return answer

    def present(self, example: str, answer: dict[str, Any], labels: Sequence[str]) -> Prediction:
        scores = map(float, answer["probabilities"])
        ranked = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])
        given = [raw.decode() for raw in answer["labels"] if raw]
        return Prediction(
            title=shorten(example),
            columns=["label", "probability", "given"],
            rows=[[name, f"{p:.1%}", "yes" if name in given else ""] for name, p in ranked],
            json={"text": example, "labels": given, "probabilities": dict(ranked)},
        )

    def columns(self) -> dict[str, type]:
        return {"labels": str}

    def cells(self, answer: dict[str, Any]) -> list[Any]:
        return [self.config.data.separator.join(answer["labels"])]

    def describe(
        self, probabilities: np.ndarray, labels: Sequence[str], calibration: Calibration
    ) -> str:
        thresholds = _thresholds(labels, calibration)
        given = np.flatnonzero(probabilities.astype(np.float32) >= thresholds)
        ranked = given[np.argsort(-probabilities[given], kind="stable")]
        return ", ".join(f"{labels[i]} ({probabilities[i]:.1%})" for i in ranked) or NONE

    def example(
        self, record: MultiLabelText, probabilities: np.ndarray, labels: Sequence[str]
    ) -> tuple[str, str, float]:
        given = probabilities >= _HALF
        names = [name for name, is_given in zip(labels, given, strict=True) if is_given]
        # The probability of the least certain decision.
        confidence = float(np.maximum(probabilities, 1 - probabilities).min())
        return ", ".join(record.labels) or NONE, ", ".join(names) or NONE, confidence

    def evaluate(
        self,
        records: Sequence[MultiLabelText],
        hot: np.ndarray,
        probabilities: np.ndarray,
        labels: Sequence[str],
        calibration: Calibration,
    ) -> Evaluation:
        return label_evaluation.evaluate(
            records,
            hot.astype(bool),
            probabilities,
            labels,
            temperature=calibration.temperature,
            thresholds=_thresholds(labels, calibration),
        )


def _thresholds(labels: Sequence[str], calibration: Calibration) -> np.ndarray:
    """Return the threshold of each label, ``<float32>[labels]``."""
    found = calibration.thresholds
    return np.array([_HALF] * len(labels) if found is None else found, np.float32)


def best_f1_threshold(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the threshold with the highest F1; one half if no text has the label.

    It lies halfway between two probabilities, so that rounding does not matter.

    Args:
        probabilities: Of one label, ``<float>[texts]``.
        truth: 1 for the texts that have it, ``<float>[texts]``.
    """
    if not truth.any():
        return _HALF
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order]
    right = np.cumsum(truth[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + truth.sum())
    # Texts with the same probability are on one side.
    f1[:-1][falling[1:] == falling[:-1]] = -1
    best = int(f1.argmax())
    return float((falling[best] + np.append(falling, 0.0)[best + 1]) / 2)
