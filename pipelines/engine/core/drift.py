"""Compare distributions: histograms, the population stability index, and what chance explains.

::

    PSI = Σ_b (p_b − q_b) · ln(p_b / q_b)          p, q: shares of the reference and of new values

If both are samples of one distribution, PSI / (1/n + 1/m) is distributed as χ² with one degree of
freedom less than bins (Yurdakul 2018, "Statistical properties of the population stability index").
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator
from scipy.special import chdtrc, chdtri, kolmogorov

#: PSI below the first is no drift, above the second much drift.
SOME, MUCH = 0.1, 0.25
#: Probability that any of the features compared together exceeds its noise by chance.
FALSE_ALARMS = 0.01
#: Bins that are kept of numbers, and most of those that are compared.
_KEPT_BINS, _COMPARED_BINS = 50, 10
#: Values in a compared bin of the smaller sample, if there are enough for three bins.
_PER_BIN = 20
#: Categories that are kept; others are counted together.
_CATEGORIES = 50
#: Smallest expected count of a category that is compared by itself.
_EXPECTED = 5

Verdict = Literal["none", "some", "much", "too few"]


class Histogram(BaseModel):
    """The distribution of a feature: of numbers, or of categories.

    Attributes:
        edges: Of numbers, the upper edges of the bins, rising; a bin includes its edge. The last
            bin has none.
        categories: The names of categories; the last bin counts all others.
        counts: Values in each bin.
        clustering: How many values that come together, such as the words of a text, tell as much
            as an independent one (the design effect of cluster sampling, Kish 1965).
        quantiles: The 10 %, 50 % and 90 % quantiles of numbers.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    edges: tuple[float, ...] | None = None
    categories: tuple[str, ...] | None = None
    counts: tuple[int, ...]
    clustering: float = 1.0
    quantiles: tuple[float, float, float] | None = None

    @model_validator(mode="after")
    def _bins_agree(self) -> Self:
        named = [bins for bins in (self.edges, self.categories) if bins is not None]
        if len(named) != 1 or len(self.counts) != len(named[0]) + 1 or min(self.counts) < 0:
            raise ValueError("counts do not fit the bins")
        if self.edges is not None and list(self.edges) != sorted(set(self.edges)):
            raise ValueError("edges do not rise")
        return self

    @classmethod
    def of_numbers(cls, values: np.ndarray, groups: np.ndarray | None = None) -> Self:
        """Return the histogram of numbers, in bins of about equal counts.

        Args:
            values: ``<float>[n]``, at least one of them finite; others are left out.
            groups: ``<int>[n]``, the group of each value; by default each is independent.
        """
        finite = np.isfinite(values)
        numbers = np.asarray(values, np.float64)[finite]
        shares = np.linspace(0, 1, _KEPT_BINS + 1)
        edges = np.unique(np.quantile(numbers, shares, method="inverted_cdf"))
        # Values below all of the reference have a bin of their own, as those above have.
        edges = np.concatenate([[np.nextafter(edges[0], -np.inf)], edges])
        bins = np.searchsorted(edges, numbers)
        counts = np.bincount(bins, minlength=len(edges) + 1)
        low, median, high = np.quantile(numbers, [0.1, 0.5, 0.9]).tolist()
        found = cls(
            edges=tuple(edges.tolist()),
            counts=tuple(counts.tolist()),
            quantiles=(low, median, high),
        )
        return found._clustered(bins, None if groups is None else groups[finite])

    @classmethod
    def of_categories(cls, values: np.ndarray, groups: np.ndarray | None = None) -> Self:
        """Return the histogram of categories.

        Args:
            values: ``[n]``, texts or whole numbers, which are named by their digits.
            groups: As for `of_numbers`.
        """
        names, numbers, counts = np.unique(values, return_inverse=True, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        place = np.empty(len(names), np.int64)
        place[order] = np.minimum(np.arange(len(names)), _CATEGORIES)
        kept = order[:_CATEGORIES]
        bins = np.minimum(place[numbers], len(kept))
        counts = np.bincount(bins, minlength=len(kept) + 1)
        found = cls(categories=tuple(str(names[i]) for i in kept), counts=tuple(counts.tolist()))
        return found._clustered(bins, groups)

    @property
    def size(self) -> int:
        """Number of values."""
        return sum(self.counts)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.categories or ())}

    def bin(self, value: Any) -> int | None:
        """Return the bin of a value; None if it is not a finite number."""
        if self.edges is not None:
            return bisect_left(self.edges, value) if math.isfinite(value) else None
        return self._places.get(value, len(self._places))

    def count(self, values: np.ndarray) -> np.ndarray:
        """Count values in these bins, ``<int64>[bins]``."""
        if self.edges is not None:
            numbers = np.asarray(values, np.float64)
            bins = np.searchsorted(self.edges, numbers[np.isfinite(numbers)])
            return np.bincount(bins, minlength=len(self.counts))
        names, counts = np.unique(values, return_counts=True)
        found = np.zeros(len(self.counts), np.int64)
        for name, number in zip(names.tolist(), counts.tolist(), strict=True):
            found[self._places.get(str(name), len(self._places))] += number
        return found

    def _clustered(self, bins: np.ndarray, groups: np.ndarray | None) -> Self:
        """Return the histogram with the clustering of values in these bins and groups."""
        if groups is None:
            return self
        together = groups_of(self, self.size)
        clustering = _clustering(together[bins], merged(self.counts, together), groups)
        return self.model_copy(update={"clustering": clustering})


@dataclass(frozen=True)
class Drift:
    """How far new values are from a reference.

    Attributes:
        psi: The population stability index.
        noise: What it is below by chance, if nothing has changed.
        ks: The Kolmogorov–Smirnov statistic of numbers, the largest difference between the
            cumulated shares; None for categories.
        p_value: Probability of a difference as large by chance: of the Kolmogorov–Smirnov
            statistic, or of χ² for categories.
    """

    psi: float
    noise: float
    ks: float | None
    p_value: float

    @property
    def verdict(self) -> Verdict:
        """How much drift there is; ``too few`` if not even much could be told from chance."""
        if self.psi <= self.noise:
            return "none" if self.noise <= MUCH else "too few"
        return "none" if self.psi < SOME else "some" if self.psi <= MUCH else "much"

    def exceeds(self, limit: float) -> bool:
        """Return whether the PSI is above a limit, and not by chance."""
        return self.psi > max(limit, self.noise)


def compare(reference: Histogram, counts: Sequence[int] | np.ndarray, features: int) -> Drift:
    """Compare new values with a reference.

    Args:
        reference: The reference.
        counts: New values in its bins, at least one.
        features: Number of features that are compared together.
    """
    old, new = np.asarray(reference.counts), np.asarray(counts)
    n, m = (c.sum() / reference.clustering for c in (old, new))
    p, q = (merged(c, groups_of(reference, min(n, m))) for c in (old, new))
    spread = 1 / n + 1 / m
    level = FALSE_ALARMS / features
    noise = float(chdtri(max(len(p) - 1, 1), level) * spread)
    if reference.categories is not None:
        return Drift(psi(p, q), noise, None, _chi_squared(p, q, reference.clustering))
    distance = float(np.abs(np.cumsum(old) / old.sum() - np.cumsum(new) / new.sum()).max())
    return Drift(psi(p, q), noise, distance, float(kolmogorov(distance / math.sqrt(spread))))


def psi(expected: np.ndarray, actual: np.ndarray) -> float:
    """Return the population stability index of two counts in the same bins.

    The share of half a value of the smaller sample is added to each share, so that empty bins have
    a logarithm.
    """
    half = 0.5 / min(expected.sum(), actual.sum())
    p, q = ((c / c.sum() + half) / (1 + half * len(c)) for c in (expected, actual))
    return float(np.sum((p - q) * np.log(p / q)))


def groups_of(reference: Histogram, size: float) -> np.ndarray:
    """Return which bins are compared as one, ``<int64>[bins]``: the number of each one's group.

    Neighbouring bins of numbers are put together until each group has its share of the reference.
    A bin that has it alone, because many values are equal, stays alone, and so do bins beside it.

    Args:
        reference: The reference.
        size: Number of independent values in the smaller of the two samples.
    """
    counts = reference.counts
    if reference.edges is None:
        return _categories_together(np.asarray(counts), size)
    bins = min(max(size // _PER_BIN, 3), _COMPARED_BINS)
    share = sum(counts) / bins
    groups, group, filled, closed = [], -1, 0, True
    for count in counts:
        if closed or count >= share:
            group, filled = group + 1, 0
        groups.append(group)
        filled += count
        closed = filled >= share * (1 - 1e-9)
    # What is left at the upper end is too little for a group, unless its neighbour is one value.
    last = [i for i, g in enumerate(groups) if g == group]
    before = [i for i, g in enumerate(groups) if g == group - 1]
    if not closed and len(before) > 1:
        groups[last[0] :] = [group - 1] * len(last)
    return np.array(groups)


def _categories_together(counts: np.ndarray, size: float) -> np.ndarray:
    """Compare categories that are too rare for a sample of this size with all others as one.

    Else those that the reference happens to lack would look new.
    """
    expected = counts[:-1] / counts.sum() * size
    frequent = int((expected >= _EXPECTED).sum())  # the most frequent come first
    return np.minimum(np.arange(len(counts)), max(frequent, 1))


def merged(counts: Sequence[int] | np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the counts of groups of bins."""
    return np.bincount(groups, weights=counts)


def _chi_squared(p: np.ndarray, q: np.ndarray, clustering: float) -> float:
    """Return the p-value of Pearson's test that two counts are of one distribution."""
    filled = (p + q) > 0
    a, b = p[filled], q[filled]
    n, m = a.sum(), b.sum()
    statistic = float(np.sum((a * math.sqrt(m / n) - b * math.sqrt(n / m)) ** 2 / (a + b)))
    return float(chdtrc(max(len(a) - 1, 1), statistic / clustering))


def _clustering(bins: np.ndarray, counts: np.ndarray, groups: np.ndarray) -> float:
    """Return how many values of one group tell as much as an independent one; see `Histogram`.

    It is the variance of the shares between groups relative to that of independent values, as a
    mean over bins in which each counts as in χ² (Rao & Scott 1981).
    """
    numbers = np.unique(groups, return_inverse=True)[1]
    table = np.zeros((int(numbers.max()) + 1, len(counts)))
    np.add.at(table, (numbers, bins), 1)
    shares, size = counts / counts.sum(), counts.sum()
    if len(table) < 2:
        return float(size)  # one group is as good as one value
    deviations = table - table.sum(axis=1, keepdims=True) * shares
    variances = len(table) / (len(table) - 1) * np.square(deviations).sum(axis=0) / size**2
    filled = shares > 0
    if filled.sum() < 2:
        return 1.0
    relative = size * np.sum(variances[filled] / shares[filled]) / (filled.sum() - 1)
    return float(max(relative, 1.0))
