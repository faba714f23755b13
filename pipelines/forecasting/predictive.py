"""Predictive distributions of the model and of the baselines, with their scores.

Unless stated otherwise, arrays are ``<float64>[windows, steps]``: changes from the last value, in
units of the level (its logarithm, for log returns).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special, stats

Levels = Sequence[float] | np.ndarray
#: Levels of the quantiles by which a distribution without a formula is scored.
DENSE_LEVELS = np.arange(0.5, 100) / 100
#: Replaces infinite degrees of freedom where the result of a formula is discarded.
_HUGE = 1e6


class Predictive(Protocol):
    """A distribution of each change."""

    def median(self) -> np.ndarray:
        """Return the medians."""
        ...

    def quantiles(self, levels: Levels) -> np.ndarray:
        """Return the quantiles at some levels, ``<float64>[windows, steps, levels]``."""
        ...

    def crps(self, truth: np.ndarray) -> np.ndarray:
        """Compute the continuous ranked probability score, ∫ (F(x) − 1[x ≥ truth])² dx.

        For a point forecast, this is the absolute error.
        """
        ...

    def cdf(self, truth: np.ndarray) -> np.ndarray:
        """Return the probability of values up to ``truth``."""
        ...


@dataclass(frozen=True)
class Parametric:
    """Gaussian distributions, or location-scale Student-t distributions.

    The CRPS of z = (x − location) / scale, in units of the scale (Gneiting & Raftery 2007; Jordan
    et al. 2019), is::

        gaussian    z (2Φ(z) − 1) + 2φ(z) − 1/√π
        student_t   z (2F(z) − 1) + 2f(z) (ν + z²)/(ν − 1) − 2√ν/(ν − 1) · B(½, ν − ½)/B(½, ν/2)²

    Attributes:
        location: The medians.
        scale: The scales.
        freedom: Degrees of freedom of the Student-t, infinity for a Gaussian; None if all
            distributions are Gaussian.
    """

    location: np.ndarray
    scale: np.ndarray
    freedom: np.ndarray | None = None

    def median(self) -> np.ndarray:
        return self.location

    def quantiles(self, levels: Levels) -> np.ndarray:
        probabilities = np.asarray(levels)
        unit = special.ndtri(probabilities)
        if self.freedom is not None:
            v = self.freedom[..., None]
            unit = np.where(np.isinf(v), unit, special.stdtrit(np.minimum(v, _HUGE), probabilities))
        values: np.ndarray = self.location[..., None] + self.scale[..., None] * unit
        return values

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
        score: np.ndarray = self.scale * unit
        return score

    def cdf(self, truth: np.ndarray) -> np.ndarray:
        z = (truth - self.location) / self.scale
        probability: np.ndarray = special.ndtr(z)
        if self.freedom is None:
            return probability
        heavy = special.stdtr(np.minimum(self.freedom, _HUGE), z)
        return np.where(np.isinf(self.freedom), probability, heavy)


@dataclass(frozen=True)
class Empirical:
    """Distributions given by quantiles, interpolated and extrapolated linearly.

    Attributes:
        levels: Rising levels, ``<float64>[levels]``.
        values: The quantiles, ``<float64>[windows, steps, levels]``.
    """

    levels: np.ndarray
    values: np.ndarray

    @classmethod
    def from_paths(cls, paths: np.ndarray) -> Empirical:
        """Return the empirical distributions of samples ``<float>[windows, paths, steps]``."""
        return cls(DENSE_LEVELS, np.moveaxis(np.quantile(paths, DENSE_LEVELS, axis=1), 0, -1))

    def median(self) -> np.ndarray:
        return self.quantiles([0.5])[..., 0]

    def quantiles(self, levels: Levels) -> np.ndarray:
        probabilities = np.asarray(levels, np.float64)
        upper = np.clip(np.searchsorted(self.levels, probabilities), 1, len(self.levels) - 1)
        fraction = (probabilities - self.levels[upper - 1]) / (
            self.levels[upper] - self.levels[upper - 1]
        )
        low, high = self.values[..., upper - 1], self.values[..., upper]
        values: np.ndarray = low + fraction * (high - low)
        return values

    def crps(self, truth: np.ndarray) -> np.ndarray:
        """Approximate the CRPS by twice the mean pinball loss over `DENSE_LEVELS`."""
        above = truth[..., None] - self.quantiles(DENSE_LEVELS)
        score: np.ndarray = 2 * np.mean(
            np.maximum(DENSE_LEVELS * above, (DENSE_LEVELS - 1) * above), axis=-1
        )
        return score

    def cdf(self, truth: np.ndarray) -> np.ndarray:
        dense = self.quantiles(DENSE_LEVELS)
        probability: np.ndarray = (dense < truth[..., None]).mean(axis=-1)
        return probability


def pinball(truth: np.ndarray, values: np.ndarray, levels: Levels) -> np.ndarray:
    """Compute the pinball loss max(q (x − x_q), (q − 1)(x − x_q)), averaged over the levels.

    Args:
        truth: ``<float64>[windows, steps]``.
        values: The quantiles, ``<float64>[windows, steps, levels]``.
        levels: Their levels.

    Returns:
        ``<float64>[windows, steps]``.
    """
    probabilities = np.asarray(levels)
    above = truth[..., None] - values
    loss: np.ndarray = np.mean(
        np.maximum(probabilities * above, (probabilities - 1) * above), axis=-1
    )
    return loss
