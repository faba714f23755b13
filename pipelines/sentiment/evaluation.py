"""How good a classifier is: scores, figures, and what it got most wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy.special import softmax
from sklearn import metrics

from pipelines.engine.core import intervals, plotting
from pipelines.engine.core.tables import Table
from pipelines.engine.tasks.base import Evaluation
from pipelines.sentiment import plots
from pipelines.sentiment.decision import CoverageCurve
from pipelines.sentiment.records import LabelledText

WORST = 50
#: Classes whose own scores are among the scores of the run; of more, they are in a table only.
_SCORED_CLASSES = 50


def evaluate(
    records: Sequence[LabelledText],
    truth: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    *,
    temperature: float = 1.0,
    threshold: float | None = None,
) -> Evaluation:
    """
    Args:
        truth: ``<int>[records]``, class numbers.
        probabilities: ``<float>[records, classes]``, rows that add up to one.
        temperature: What the logits were divided by.
        threshold: Smallest probability with which a text gets a label, if there is one.
    """
    predicted = probabilities.argmax(axis=-1)
    confidence = probabilities.max(axis=-1)
    correct = predicted == truth
    of_truth = probabilities[np.arange(len(truth)), truth]
    classes = np.arange(len(labels))
    matrix = metrics.confusion_matrix(truth, predicted, labels=classes)
    by_class = ClassScores.of(
        labels, right=matrix.diagonal(), support=matrix.sum(axis=1), predicted=matrix.sum(axis=0)
    )
    scores = {
        "accuracy": float(correct.mean()),
        "macro_f1": float(by_class.f1.mean()),
        "loss": float(-np.log(np.maximum(of_truth, 1e-12)).mean()),
        "calibration_error": plotting.expected_calibration_error(confidence, correct),
    }
    if (auc := _roc_auc(truth, probabilities)) is not None:
        scores["roc_auc"] = auc
    before = softmax(np.log(np.maximum(probabilities, 1e-300)) * temperature, axis=-1)
    scores |= calibration_scores(temperature, before.max(axis=-1), correct)
    verdict = calibration_verdict(scores)
    curve = CoverageCurve.of(confidence, correct)
    if threshold is not None:
        scores |= _decision_scores(curve, threshold)
        verdict.append(_decision_verdict(scores))
    return Evaluation(
        scores=scores | by_class.scores(),
        intervals={"accuracy": intervals.wilson(int(correct.sum()), len(correct))},
        figures={
            "confusion_matrix": plotting.confusion_matrix(matrix, labels),
            "reliability": plotting.reliability_diagram(confidence, correct),
            "coverage": plots.coverage(curve, threshold),
            "classes": by_class.figure(),
        },
        tables={
            "classes": by_class.table(),
            "thresholds": curve.table(),
            "worst_mistakes": _worst_mistakes(records, truth, probabilities, labels),
        },
        verdict=verdict,
    )


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, or of each label.

    Attributes:
        labels: Their names.
        precision: Share of the texts with this prediction that have the class; 0 if none has the
            prediction.
        recall: Share of the texts of the class that have this prediction; 0 if there are none.
        f1: The harmonic mean of the two.
        support: Texts of the class.
        predicted: Texts with this prediction.
    """

    labels: Sequence[str]
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(
        cls, labels: Sequence[str], *, right: np.ndarray, support: np.ndarray, predicted: np.ndarray
    ) -> ClassScores:
        """Compute the scores from counts of texts.

        Args:
            labels: Names of the classes.
            right: Texts of each class that are predicted to be of it, ``<int>[classes]``.
            support, predicted: See `ClassScores`.
        """
        return cls(
            labels,
            precision=right / np.maximum(predicted, 1),
            recall=right / np.maximum(support, 1),
            f1=2 * right / np.maximum(support + predicted, 1),
            support=support,
            predicted=predicted,
        )

    def scores(self) -> dict[str, float]:
        """Return the scores by name, such as ``recall/negative``; empty for very many classes."""
        if len(self.labels) > _SCORED_CLASSES:
            return {}
        return {
            f"{name}/{label}": float(value)
            for name in ("precision", "recall", "f1", "support")
            for label, value in zip(self.labels, getattr(self, name), strict=True)
        }

    def table(self) -> Table:
        """Return a row of scores for each class."""
        names = ["precision", "recall", "f1", "support", "predicted"]
        columns = [getattr(self, name) for name in names]
        rows = zip(self.labels, *(column.round(4).tolist() for column in columns), strict=True)
        return Table(["class", *names], [list(row) for row in rows])

    def figure(self) -> Figure:
        """Plot precision, recall and F1 of each class."""
        return plots.classes(self.labels, self.precision, self.recall, self.f1, self.support)


def calibration_scores(
    temperature: float, confidence: np.ndarray, correct: np.ndarray
) -> dict[str, float]:
    """Return the temperature, and the calibration error without it.

    Args:
        temperature: The temperature.
        confidence: Probabilities of the predictions without it.
        correct: Whether they are right.
    """
    error = plotting.expected_calibration_error(confidence, correct)
    return {"temperature": temperature, "calibration_error_before": error}


def calibration_verdict(scores: dict[str, float]) -> list[str]:
    """Say what the temperature does, if it is not 1."""
    if scores["temperature"] == 1.0:
        return []
    return [
        f"The temperature {scores['temperature']:.2f}, learned on the validation split, changes "
        f"the calibration error from {scores['calibration_error_before']:.3f} to "
        f"{scores['calibration_error']:.3f}."
    ]


def _decision_scores(curve: CoverageCurve, threshold: float) -> dict[str, float]:
    coverage, accuracy = curve.at(threshold)
    scores = {"threshold": threshold, "coverage": coverage}
    return scores | ({"answered_accuracy": accuracy} if coverage else {})


def _decision_verdict(scores: dict[str, float]) -> str:
    if "answered_accuracy" not in scores:
        return f"With the threshold {scores['threshold']:.3f}, no text gets a label."
    return (
        f"With the threshold {scores['threshold']:.3f}, {scores['coverage']:.1%} of the texts get "
        f"a label, and {scores['answered_accuracy']:.1%} of these labels are right."
    )


def _worst_mistakes(
    records: Sequence[LabelledText],
    truth: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
) -> Table:
    """Return the mistakes whose true class was the least likely."""
    predicted = probabilities.argmax(axis=-1)
    of_truth = probabilities[np.arange(len(truth)), truth]
    order = np.argsort(of_truth, kind="stable")
    worst = [int(i) for i in order if predicted[i] != truth[i]][:WORST]
    return Table(
        ["place", "true", "predicted", "confidence", "text"],
        [
            [
                records[i].place,
                labels[truth[i]],
                labels[predicted[i]],
                round(float(probabilities[i].max()), 4),
                records[i].text[:1000],
            ]
            for i in worst
        ],
    )


def _roc_auc(truth: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Area under the ROC curve, for more classes one against the rest; needs every class."""
    if len(np.unique(truth)) < probabilities.shape[1]:
        return None
    if probabilities.shape[1] == 2:
        return float(metrics.roc_auc_score(truth, probabilities[:, 1]))
    return float(metrics.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro"))
