"""How good the labels of texts with any number of them are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit
from sklearn import metrics

from pipelines.engine.core import plotting
from pipelines.engine.core.tables import Table
from pipelines.engine.tasks.base import Evaluation
from pipelines.sentiment.evaluation import (
    WORST,
    ClassScores,
    calibration_scores,
    calibration_verdict,
)
from pipelines.sentiment.records import MultiLabelText


def evaluate(
    records: Sequence[MultiLabelText],
    truth: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    *,
    temperature: float,
    thresholds: np.ndarray,
) -> Evaluation:
    """
    Args:
        truth: ``<bool>[records, labels]``.
        probabilities: ``<float>[records, labels]``.
        temperature: What the logits were divided by.
        thresholds: Smallest probability with which each label is given, ``<float32>[labels]``.
    """
    given = probabilities.astype(np.float32) >= thresholds
    right = truth & given
    by_label = ClassScores.of(
        labels, right=right.sum(axis=0), support=truth.sum(axis=0), predicted=given.sum(axis=0)
    )
    clipped = np.clip(probabilities, 1e-12, 1 - 1e-12)
    loss = -np.where(truth, np.log(clipped), np.log1p(-clipped)).mean(axis=-1)
    scores = {
        "accuracy": float((truth == given).all(axis=-1).mean()),
        "micro_f1": float(2 * right.sum() / max(truth.sum() + given.sum(), 1)),
        "macro_f1": float(by_label.f1.mean()),
        "hamming_loss": float((truth != given).mean()),
        "loss": float(loss.mean()),
        "calibration_error": plotting.expected_calibration_error(*_decisions(clipped, truth)),
    }
    before = expit(logit(clipped) * temperature)
    scores |= calibration_scores(temperature, *_decisions(before, truth))
    if (auc := _roc_auc(truth, probabilities)) is not None:
        scores["roc_auc"] = auc
    table = by_label.table()
    table.columns.append("threshold")
    for row, threshold in zip(table.rows, thresholds, strict=True):
        row.append(round(float(threshold), 4))
    return Evaluation(
        scores=scores | by_label.scores(),
        figures={
            "reliability": plotting.reliability_diagram(*_decisions(clipped, truth)),
            "classes": by_label.figure(),
        },
        tables={
            "classes": table,
            "worst_mistakes": _worst_mistakes(records, truth, given, loss, labels),
        },
        verdict=calibration_verdict(scores),
    )


def _decisions(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of the likelier answer for each text and label, and if it is right."""
    likely = probabilities >= 0.5
    return np.where(likely, probabilities, 1 - probabilities).ravel(), (likely == truth).ravel()


def _roc_auc(truth: np.ndarray, probabilities: np.ndarray) -> float | None:
    """The mean area under the ROC curve of the labels; needs texts with and without each."""
    if (truth.all(axis=0) | ~truth.any(axis=0)).any():
        return None
    return float(metrics.roc_auc_score(truth, probabilities, average="macro"))


def _worst_mistakes(
    records: Sequence[MultiLabelText],
    truth: np.ndarray,
    given: np.ndarray,
    loss: np.ndarray,
    labels: Sequence[str],
) -> Table:
    """Return the texts with wrong labels whose loss is the highest."""

    def names(row: np.ndarray) -> str:
        return ", ".join(labels[int(i)] for i in np.flatnonzero(row))

    wrong = (truth != given).any(axis=-1)
    worst = [int(i) for i in np.argsort(-loss, kind="stable") if wrong[i]][:WORST]
    return Table(
        ["place", "true", "predicted", "loss", "text"],
        [
            [
                records[i].place, names(truth[i]), names(given[i]), round(float(loss[i]), 4),
                records[i].text[:1000],
            ]
            for i in worst
        ],
    )  # fmt: skip
