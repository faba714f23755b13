"""Whether one forecast is better than another, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Mean:
    """A mean over time, and its standard error where neighbours in time are alike."""

    value: float
    error: float
    steps: int

    def interval(self, share: float = 0.95) -> tuple[float, float]:
        """Student's, with one degree of freedom less than there are steps."""
        if self.steps < 2:
            return -math.inf, math.inf
        far = float(stats.t.ppf(0.5 + share / 2, self.steps - 1)) * self.error
        return self.value - far, self.value + far

    @property
    def p_value(self) -> float:
        """Of a mean of zero, two-sided."""
        if self.steps < 2 or self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.value / self.error), self.steps - 1))


def mean_over_time(values: np.ndarray, times: np.ndarray, horizon: int = 1) -> Mean:
    """The mean of all values; those of one time count as one for its standard error, because what
    moves one stock moves the others. The error is Newey and West's (1987) with the lag
    max(horizon − 1, ⌊4 (n/100)^(2/9)⌋), and the small-sample factor of Harvey et al. (1997).

    Args:
        values: ``<float>[windows]``.
        times: ``<int>[windows]``, when each was forecast.
        horizon: steps ahead: so many neighbours overlap.
    """
    _, which, counts = np.unique(times, return_inverse=True, return_counts=True)
    total = float(values.mean())
    # Sums by time, so that the mean of all is the mean over times, however many are at each.
    sums = np.bincount(which, weights=values - total) / counts.mean()
    n = len(sums)
    lag = min(max(horizon - 1, math.floor(4 * (n / 100) ** (2 / 9))), n - 1)
    variance = float(sums @ sums) / n
    for k in range(1, lag + 1):
        variance += 2 * (1 - k / (lag + 1)) * float(sums[k:] @ sums[:-k]) / n
    factor = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    error = math.sqrt(max(variance, 0.0) / n / max(factor, 1 / n))
    return Mean(total, error, n)


def diebold_mariano(ours: np.ndarray, theirs: np.ndarray, times: np.ndarray, horizon: int) -> Mean:
    """The mean of our loss less theirs, by time (Diebold & Mariano 1995)."""
    return mean_over_time(ours - theirs, times, horizon)
