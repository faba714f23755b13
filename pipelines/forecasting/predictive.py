"""Distributions of changes that are scored: of the model and of the baselines alike.

Every array of numbers is ``<float64>[windows, steps]``, in units of the level (its logarithm, for
log returns), above the last value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special, stats

Levels = Sequence[float] | np.ndarray
#: A distribution without a formula is scored by so many of its quantiles.
DENSE = np.arange(0.5, 100) / 100
#: Stands for infinite freedom where a formula is computed only to be thrown away.
_HUGE = 1e6


class Predictive(Protocol):
    """A distribution of each change."""

    def median(self) -> np.ndarray: ...

    def quantiles(self, levels: Levels) -> np.ndarray:
        """``<float64>[windows, steps, levels]``."""
        ...

    def crps(self, truth: np.ndarray) -> np.ndarray:
        """∫ (F(x) − 1[x ≥ truth])² dx: of a point forecast, the absolute error."""
        ...

    def cdf(self, truth: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Parametric:
    """Gaussian, or with ``freedom`` a location-scale Student-t; of infinite freedom it is Gaussian.

    CRPS of z = (x − location) / scale, in units of the scale (Gneiting & Raftery 2007; Jordan et
    al. 2019)::

        gaussian    z (2Φ(z) − 1) + 2φ(z) − 1/√π
        student_t   z (2F(z) − 1) + 2f(z) (ν + z²)/(ν − 1) − 2√ν/(ν − 1) · B(½, ν − ½)/B(½, ν/2)²
    """

    location: np.ndarray
    scale: np.ndarray
    freedom: np.ndarray | None = None

    def median(self) -> np.ndarray:
        return self.location

    def quantiles(self, levels: Levels) -> np.ndarray:
        at = np.asarray(levels)
        unit = special.ndtri(at)
        if self.freedom is not None:
            v = self.freedom[..., None]
            unit = np.where(np.isinf(v), unit, special.stdtrit(np.minimum(v, _HUGE), at))
        return self.location[..., None] + self.scale[..., None] * unit

    def crps(self, truth: np.ndarray) -> np.ndarray:
        z = (truth - self.location) / self.scale
        unit = z * (2 * special.ndtr(z) - 1) + 2 * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
        unit -= 1 / np.sqrt(np.pi)
        if self.freedom is not None:
            v = np.minimum(self.freedom, _HUGE)
            beta = np.exp(special.betaln(0.5, v - 0.5) - 2 * special.betaln(0.5, v / 2))
            heavy = z * (2 * special.stdtr(v, z) - 1)
            heavy += 2 * stats.t.pdf(z, v) * (v + z * z) / (v - 1)
            heavy -= 2 * np.sqrt(v) / (v - 1) * beta
            unit = np.where(np.isinf(self.freedom), unit, heavy)
        return self.scale * unit

    def cdf(self, truth: np.ndarray) -> np.ndarray:
        z = (truth - self.location) / self.scale
        if self.freedom is None:
            return special.ndtr(z)
        heavy = special.stdtr(np.minimum(self.freedom, _HUGE), z)
        return np.where(np.isinf(self.freedom), special.ndtr(z), heavy)


@dataclass(frozen=True)
class Empirical:
    """Known by rising quantiles, straight lines between them and on beyond the last ones.

    Args:
        levels: of them, rising.
        values: ``<float64>[windows, steps, levels]``.
    """

    levels: np.ndarray
    values: np.ndarray

    @classmethod
    def of_paths(cls, paths: np.ndarray) -> Empirical:
        """Of draws ``<float>[windows, paths, steps]``."""
        return cls(DENSE, np.moveaxis(np.quantile(paths, DENSE, axis=1), 0, -1))

    def median(self) -> np.ndarray:
        return self.quantiles([0.5])[..., 0]

    def quantiles(self, levels: Levels) -> np.ndarray:
        at = np.asarray(levels, np.float64)
        upper = np.clip(np.searchsorted(self.levels, at), 1, len(self.levels) - 1)
        share = (at - self.levels[upper - 1]) / (self.levels[upper] - self.levels[upper - 1])
        low, high = self.values[..., upper - 1], self.values[..., upper]
        return low + share * (high - low)

    def crps(self, truth: np.ndarray) -> np.ndarray:
        """Twice the mean pinball loss over dense levels."""
        above = truth[..., None] - self.quantiles(DENSE)
        return 2 * np.mean(np.maximum(DENSE * above, (DENSE - 1) * above), axis=-1)

    def cdf(self, truth: np.ndarray) -> np.ndarray:
        dense = self.quantiles(DENSE)
        return (dense < truth[..., None]).mean(axis=-1)


def pinball(truth: np.ndarray, values: np.ndarray, levels: Levels) -> np.ndarray:
    """max(q (x − x_q), (q − 1)(x − x_q)), the mean over the levels, of each window and step."""
    at = np.asarray(levels)
    above = truth[..., None] - values
    return np.mean(np.maximum(at * above, (at - 1) * above), axis=-1)
