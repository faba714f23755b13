"""Predictive distributions and metrics, compared with SciPy and statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from pipelines.forecasting import (
    metrics,
)
from pipelines.forecasting.predictive import Empirical, Parametric, pinball
from tests.support.forecasting import (
    LEVELS,
)


@given(st.floats(-3, 3), st.floats(0.1, 5), st.floats(2.5, 50), st.floats(-6, 6))
def test_crps_is_the_integral(location, scale, freedom, truth):
    for law, one in (
        (stats.norm(location, scale), Parametric(*np.array([[[location]], [[scale]]]))),
        (
            stats.t(freedom, location, scale),
            Parametric(*np.array([[[location]], [[scale]], [[freedom]]])),
        ),
    ):
        below = integrate.quad(lambda x, f=law.cdf: f(x) ** 2, -np.inf, truth)[0]
        above = integrate.quad(lambda x, f=law.sf: f(x) ** 2, truth, np.inf)[0]
        found = one.crps(np.array([[truth]]))[0, 0]
        assert found == pytest.approx(below + above, rel=1e-3, abs=1e-5)
        assert one.cdf(np.array([[truth]]))[0, 0] == pytest.approx(law.cdf(truth), abs=1e-7)


def test_infinite_freedom_is_gaussian():
    z = np.array([[-2.0, 0.1, 3.0]])
    one, other = (
        Parametric(0 * z, 1 + 0 * z),
        Parametric(0 * z, 1 + 0 * z, np.full(z.shape, np.inf)),
    )
    np.testing.assert_array_equal(one.crps(z), other.crps(z))
    np.testing.assert_array_equal(one.cdf(z), other.cdf(z))
    np.testing.assert_array_equal(one.quantiles(LEVELS), other.quantiles(LEVELS))


def test_crps_of_quantiles_nears_the_integral():
    exact = Parametric(np.zeros((3, 1)), np.ones((3, 1)))
    levels = np.arange(1, 100) / 100
    dense = Empirical(levels, exact.quantiles(levels))
    truth = np.array([[-1.0], [0.1], [2.0]])
    np.testing.assert_allclose(dense.crps(truth), exact.crps(truth), rtol=0.01)
    np.testing.assert_allclose(dense.cdf(truth), exact.cdf(truth), atol=0.011)
    sample = np.random.default_rng(0).standard_normal((3, 4000, 1))
    np.testing.assert_allclose(
        Empirical.from_paths(sample).crps(truth), exact.crps(truth), rtol=0.06
    )
    assert pinball(truth, exact.quantiles([0.5]), [0.5]) == pytest.approx(np.abs(truth) / 2)


def test_diebold_mariano_agrees_with_a_regression_on_a_constant():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(300), rng.random(300) + 0.05
    found = metrics.diebold_mariano(ours, theirs, np.arange(300), 1)
    fit = sm.OLS(ours - theirs, np.ones(300)).fit(
        cov_type="HAC", cov_kwds={"maxlags": math.floor(4 * 3 ** (2 / 9))}
    )
    assert found.value == pytest.approx(fit.params[0])
    factor = math.sqrt(300 / 299)
    assert found.error == pytest.approx(fit.bse[0] * factor, rel=1e-6)
    # Windows of one moment move together: a copy of each is no more evidence.
    both = (np.tile(array, 2) for array in (ours, theirs, np.arange(300)))
    twice = metrics.diebold_mariano(*both, 1)
    assert twice.error == pytest.approx(found.error)


def test_confidence_interval_has_its_coverage():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        low, high = metrics.mean_over_time(rng.standard_normal(150), np.arange(150)).interval()
        hits += low <= 0 <= high
    assert 0.91 < hits / 400 < 0.98
