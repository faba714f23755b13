"""Means over time with standard errors, and the comparison of two forecasts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class MeanEstimate:
    """A mean of correlated values.

    Attributes:
        value: The mean.
        error: Its standard error.
        steps: Number of distinct times.
    """

    value: float
    error: float
    steps: int

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return Student's confidence interval, with ``steps − 1`` degrees of freedom."""
        if self.steps < 2:
            return -math.inf, math.inf
        margin = float(stats.t.ppf(0.5 + confidence / 2, self.steps - 1)) * self.error
        return self.value - margin, self.value + margin

    @property
    def p_value(self) -> float:
        """The two-sided p-value of the hypothesis that the mean is zero."""
        if self.steps < 2 or self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.value / self.error), self.steps - 1))


def mean_over_time(values: np.ndarray, times: np.ndarray, horizon: int = 1) -> MeanEstimate:
    """Estimate the mean of all values.

    For the standard error, the values of one time count as one observation, because series move
    together. The error is that of Newey & West (1987) with the lag max(horizon − 1,
    ⌊4 (n/100)^(2/9)⌋) and the small-sample factor of Harvey et al. (1997).

    Args:
        values: ``<float64>[windows]``.
        times: The time of each value, ``<int64>[windows]``.
        horizon: Number of steps ahead, over which neighbouring forecasts overlap.
    """
    _, groups, counts = np.unique(times, return_inverse=True, return_counts=True)
    total = float(values.mean())
    # Sums, not means, of each time, so that the mean over times is the mean of all values.
    sums = np.bincount(groups, weights=values - total) / counts.mean()
    n = len(sums)
    lag = min(max(horizon - 1, math.floor(4 * (n / 100) ** (2 / 9))), n - 1)
    variance = float(sums @ sums) / n
    for k in range(1, lag + 1):
        variance += 2 * (1 - k / (lag + 1)) * float(sums[k:] @ sums[:-k]) / n
    factor = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    error = math.sqrt(max(variance, 0.0) / n / max(factor, 1 / n))
    return MeanEstimate(total, error, n)


def diebold_mariano(
    ours: np.ndarray, theirs: np.ndarray, times: np.ndarray, horizon: int
) -> MeanEstimate:
    """Test the difference of two losses (Diebold & Mariano 1995).

    Args:
        ours: Losses of the first forecast, ``<float64>[windows]``.
        theirs: Losses of the second forecast, ``<float64>[windows]``.
        times: The time of each forecast, ``<int64>[windows]``.
        horizon: Number of steps ahead.

    Returns:
        The mean of ``ours − theirs``.
    """
    return mean_over_time(ours - theirs, times, horizon)
