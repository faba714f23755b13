"""Intervals of scores against their formulas, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine.core.intervals import bootstrap, known, wilson

Z = 1.959963984540054  # of the normal distribution at 97.5 %


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_the_formula_of_the_paper(counts):
    k, n = counts
    p = k / n
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    low, high = wilson(k, n)
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert -1e-12 <= low <= p <= high <= 1 + 1e-12


def test_bootstrap_of_a_mean_is_about_two_standard_errors_wide():
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    low, high = bootstrap(lambda drawn: float(values[drawn].mean()), 400, seed=1)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - Z * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + Z * error, abs=0.3 * error)


def test_bootstrap_holds_the_true_mean_in_about_95_of_100_samples():
    rng = np.random.default_rng(4)
    hits = 0
    for seed in range(100):
        values = rng.exponential(1.0, 60)
        low, high = bootstrap(lambda drawn, v=values: float(v[drawn].mean()), 60, seed=seed)
        hits += low <= 1.0 <= high
    assert 87 <= hits <= 99


def test_bootstrap_depends_on_the_seed_alone():
    values = np.arange(50.0) ** 2

    def score(drawn):
        return float(values[drawn].mean())

    assert bootstrap(score, 50, seed=1) == bootstrap(score, 50, seed=1)
    assert bootstrap(score, 50, seed=1) != bootstrap(score, 50, seed=2)


def test_too_few_records_have_no_interval():
    assert bootstrap(lambda drawn: 1.0, 9, seed=1) is None
    assert bootstrap(lambda drawn: 1.0, 10, seed=1) == (1.0, 1.0)
    assert known(a=None, b=(0.1, 0.2), c=(-math.inf, math.inf)) == {"b": (0.1, 0.2)}
