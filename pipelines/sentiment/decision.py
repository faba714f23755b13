"""When to answer: how many texts get a label at a threshold, and how many of these are right."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipelines.engine.core.tables import Table

#: The threshold of a model that reached the accuracy that was asked for nowhere.
CERTAIN = 1.0


@dataclass(frozen=True)
class CoverageCurve:
    """What happens at each threshold from the highest to the lowest confidence.

    Attributes:
        thresholds: The different confidences, falling.
        coverage: Share of the texts with at least this confidence.
        accuracy: Share of these that are right.
    """

    thresholds: np.ndarray
    coverage: np.ndarray
    accuracy: np.ndarray

    @classmethod
    def of(cls, confidence: np.ndarray, correct: np.ndarray) -> CoverageCurve:
        """Compute the curve.

        Args:
            confidence: Probability of the predicted class, ``<float>[texts]``.
            correct: Whether the prediction is right, ``<bool>[texts]``.
        """
        order = np.argsort(-confidence, kind="stable")
        falling = confidence[order]
        answered = np.arange(1, len(order) + 1)
        accuracy = np.cumsum(correct[order]) / answered
        # Texts with the same confidence are answered together.
        last = np.append(falling[1:] != falling[:-1], True)
        return cls(falling[last], answered[last] / len(order), accuracy[last])

    def at(self, threshold: float) -> tuple[float, float]:
        """Return coverage and accuracy at a threshold; (0, nan) if nothing is answered."""
        above = np.flatnonzero(self.thresholds >= threshold)
        if not len(above):
            return 0.0, math.nan
        return float(self.coverage[above[-1]]), float(self.accuracy[above[-1]])

    def threshold_for(self, accuracy: float) -> float:
        """Return the smallest threshold with at least this accuracy.

        It is 0 if no threshold is needed, and `CERTAIN` if none reaches the accuracy.
        """
        reached = np.flatnonzero(self.accuracy >= accuracy)
        if not len(reached):
            return CERTAIN
        if reached[-1] == len(self.accuracy) - 1:
            return 0.0
        return float(self.thresholds[reached[-1]])

    def table(self) -> Table:
        """Return coverage and accuracy at thresholds in steps of a hundredth."""
        lowest = math.ceil(100 * self.thresholds[-1])
        rows = []
        for threshold in [0.0, *(i / 100 for i in range(lowest, 100)), 0.995, 0.999]:
            coverage, accuracy = self.at(threshold)
            if coverage:
                rows.append([threshold, round(coverage, 4), round(accuracy, 4)])
        return Table(["threshold", "coverage", "accuracy"], rows)
