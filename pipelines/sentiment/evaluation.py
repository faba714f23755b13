"""How good a classifier is: scores, pictures, and what it got most wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn import metrics

from pipelines.engine.core import intervals, plotting
from pipelines.engine.core.tables import Table
from pipelines.engine.tasks.base import Evaluation
from pipelines.sentiment.records import LabelledText

_WORST = 50


def evaluate(
    records: Sequence[LabelledText],
    truth: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
) -> Evaluation:
    """
    Args:
        truth: ``<int>[records]``, class numbers.
        probabilities: ``<float>[records, classes]``, rows that add up to one.
    """
    predicted = probabilities.argmax(axis=-1)
    confidence = probabilities.max(axis=-1)
    correct = predicted == truth
    of_truth = probabilities[np.arange(len(truth)), truth]
    classes = np.arange(len(labels))
    matrix = metrics.confusion_matrix(truth, predicted, labels=classes)
    scores = {
        "accuracy": float(correct.mean()),
        "macro_f1": float(
            metrics.f1_score(truth, predicted, labels=classes, average="macro", zero_division=0)
        ),
        "loss": float(-np.log(np.maximum(of_truth, 1e-12)).mean()),
        "calibration_error": plotting.expected_calibration_error(confidence, correct),
    }
    if (auc := _roc_auc(truth, probabilities)) is not None:
        scores["roc_auc"] = auc
    worst = [int(i) for i in np.argsort(of_truth, kind="stable") if not correct[i]][:_WORST]
    return Evaluation(
        scores=scores,
        intervals={"accuracy": intervals.wilson(int(correct.sum()), len(correct))},
        figures={
            "confusion_matrix": plotting.confusion_matrix(matrix, labels),
            "reliability": plotting.reliability_diagram(confidence, correct),
        },
        tables={
            "worst_mistakes": Table(
                ["place", "true", "predicted", "confidence", "text"],
                [
                    [
                        records[i].place,
                        labels[truth[i]],
                        labels[predicted[i]],
                        round(float(confidence[i]), 4),
                        records[i].text[:1000],
                    ]
                    for i in worst
                ],
            )
        },
    )


def _roc_auc(truth: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Area under the ROC curve, for more classes one against the rest; needs every class."""
    if len(np.unique(truth)) < probabilities.shape[1]:
        return None
    if probabilities.shape[1] == 2:
        return float(metrics.roc_auc_score(truth, probabilities[:, 1]))
    return float(metrics.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro"))
