"""Texts with exactly one class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import log_softmax, softmax

from pipelines.engine.data.ragged import Ragged
from pipelines.engine.tasks.base import Evaluation, Prediction, shorten
from pipelines.engine.training.loop import Objective
from pipelines.engine.training.losses import ClassCrossentropy, WeightedAccuracy
from pipelines.sentiment import evaluation
from pipelines.sentiment.calibration import Calibration
from pipelines.sentiment.decision import CERTAIN, CoverageCurve
from pipelines.sentiment.labelling import Labelling
from pipelines.sentiment.processor import TextClasses
from pipelines.sentiment.records import LabelledText

#: What a table says where a text gets no label.
DONT_KNOW = "don't know"


class SingleLabel(Labelling):
    """The classes exclude each other: softmax, and the most likely one is the answer.

    With a threshold, a text whose most likely class is below it gets no label.
    """

    def objective(self, processor: TextClasses) -> Objective:
        weights = processor.class_weights

        def metrics() -> list[keras.metrics.Metric]:
            accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
            return [accuracy] if weights is None else [accuracy, WeightedAccuracy(weights)]

        return Objective(
            loss=ClassCrossentropy(weights),
            metrics=metrics,
            # The best epoch is best in what is trained.
            monitor="val_accuracy" if weights is None else "val_weighted_accuracy",
            higher_is_better=True,
        )

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        found: np.ndarray = softmax(logits, axis=-1)
        return found

    def losses(self, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
        found: np.ndarray = -(targets * log_softmax(logits, axis=-1)).sum(axis=-1)
        return found

    def outcomes(self, classes: int) -> int:
        return classes

    def hot(self, targets: np.ndarray | Ragged, classes: int) -> np.ndarray:
        assert not isinstance(targets, Ragged)
        found: np.ndarray = np.eye(classes)[targets]
        return found

    def choose_thresholds(self, probabilities: np.ndarray, hot: np.ndarray) -> list[float] | None:
        if self.config.decision.accuracy is None:
            return None
        correct = probabilities.argmax(axis=-1) == hot.argmax(axis=-1)
        curve = CoverageCurve.of(probabilities.max(axis=-1), correct)
        return [curve.threshold_for(self.config.decision.accuracy)]

    def _threshold(self, calibration: Calibration) -> float | None:
        """Return the threshold of the config, or else the one that was chosen."""
        if self.config.decision.threshold is not None:
            return self.config.decision.threshold
        return None if calibration.thresholds is None else calibration.thresholds[0]

    def answer(
        self, labels: Sequence[str], calibration: Calibration
    ) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        names, threshold = tf.constant(labels), self._threshold(calibration)

        def answer(logits: tf.Tensor) -> dict[str, tf.Tensor]:
            scores = tf.nn.softmax(logits)
            label = tf.gather(names, tf.argmax(scores, axis=-1))
            score = tf.reduce_max(scores, axis=-1)
            found = {"label": label, "score": score, "probabilities": scores}
            if threshold is None:
                return found
            answered = score >= tf.constant(threshold, score.dtype)
            none = tf.constant("")
            return found | {"label": tf.where(answered, label, none), "answered": answered}

        return answer

    def present(self, example: str, answer: dict[str, Any], labels: Sequence[str]) -> Prediction:
        scores = list(map(float, answer["probabilities"]))
        ranked = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])
        label, answered = answer["label"].decode(), answer.get("answered")
        threshold = self.config.decision.threshold
        if threshold is not None:  # of the request, or else that of the export as well
            # In the precision of the export: both decide alike.
            answered = np.float32(answer["score"]) >= np.float32(threshold)
            label = labels[int(np.argmax(answer["probabilities"]))] if answered else ""
        rows = [[name, f"{score:.1%}"] for name, score in ranked]
        decided = {} if answered is None else {"answered": bool(answered)}
        return Prediction(
            title=shorten(example),
            columns=["label", "probability"],
            rows=rows if decided.get("answered", True) else [[DONT_KNOW, ""], *rows],
            json={
                "text": example,
                "label": label,
                "score": float(answer["score"]),
                **decided,
                "probabilities": dict(ranked),
            },
        )

    def columns(self) -> dict[str, type]:
        return {"label": str, "score": float}

    def cells(self, answer: dict[str, Any]) -> list[Any]:
        return [answer["label"], answer["score"]]

    def describe(
        self, probabilities: np.ndarray, labels: Sequence[str], calibration: Calibration
    ) -> str:
        best = int(probabilities.argmax())
        said = f"{labels[best]} ({probabilities[best]:.1%})"
        threshold = self._threshold(calibration)
        if threshold is None or np.float32(probabilities[best]) >= np.float32(threshold):
            return said
        return f"{DONT_KNOW}; {said} is the most likely"

    def example(
        self, record: LabelledText, probabilities: np.ndarray, labels: Sequence[str]
    ) -> tuple[str, str, float]:
        best = int(probabilities.argmax())
        return record.label, labels[best], float(probabilities[best])

    def evaluate(
        self,
        records: Sequence[LabelledText],
        hot: np.ndarray,
        probabilities: np.ndarray,
        labels: Sequence[str],
        calibration: Calibration,
    ) -> Evaluation:
        threshold, wanted = self._threshold(calibration), self.config.decision.accuracy
        found = evaluation.evaluate(
            records,
            hot.argmax(axis=-1),
            probabilities,
            labels,
            temperature=calibration.temperature,
            threshold=threshold,
        )
        if self.config.decision.threshold is None and wanted and threshold == CERTAIN:
            found.verdict.append(
                f"No threshold reached decision.accuracy={wanted:g} on the validation split."
            )
        return found
