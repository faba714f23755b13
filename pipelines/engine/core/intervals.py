"""95 % intervals, which say how much a score would vary with other test records."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from scipy import stats

#: The lower and the upper end.
Interval: TypeAlias = tuple[float, float]

_CONFIDENCE = 0.95
_RESAMPLES = 1000
#: Resamples of fewer records say too little.
_FEWEST = 10


def wilson(successes: int, trials: int) -> Interval:
    """Return the interval of a proportion (Wilson 1927)."""
    found = stats.binomtest(successes, trials).proportion_ci(_CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def bootstrap(score: Callable[[np.ndarray], float], records: int, *, seed: int) -> Interval | None:
    """Return the percentile bootstrap interval of a score (Efron 1979).

    Args:
        score: Computes the score of some of the records, given their indices ``<int64>[records]``;
            an index may occur several times.
        records: Number of records, which are independent of each other.
        seed: Seed of the resamples.

    Returns:
        The interval; None if there are too few records.
    """
    if records < _FEWEST:
        return None
    rng = np.random.default_rng([seed, 0xB0075])
    scores = [score(rng.integers(records, size=records)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(scores, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def known(**intervals: Interval | None) -> dict[str, Interval]:
    """Return the intervals that exist and are finite, by name."""
    return {
        name: interval
        for name, interval in intervals.items()
        if interval is not None and np.isfinite(interval).all()
    }
