"""Distributions of the heads, compared with SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.forecasting import (
    distributions,
)
from tests.support.forecasting import (
    HEADS,
    LEVELS,
)


def test_log_gamma_agrees_with_scipy():
    from scipy.special import gammaln

    x = np.linspace(1, 40, 200, dtype=np.float32)
    np.testing.assert_allclose(distributions.log_gamma(x), gammaln(x), atol=2e-5)


@pytest.mark.parametrize(("head", "law"), [("gaussian", stats.norm), ("student_t", stats.t)])
def test_losses_are_negative_log_densities(head, law):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((5, 4)).astype(np.float32)
    raw = rng.standard_normal((5, 4, distributions.parameter_count(head, LEVELS))).astype(
        np.float32
    )
    p = np.asarray(distributions.to_parameters(raw, head, LEVELS))
    shapes = [p[..., 2]] if head == "student_t" else []
    expected = -law.logpdf(z, *shapes, loc=p[..., 0], scale=p[..., 1])
    np.testing.assert_allclose(distributions.losses(z, p, head, LEVELS), expected, rtol=2e-4)


def test_pinball_loss_is_minimal_at_the_quantiles():
    z = np.sort(stats.norm.ppf(np.arange(0.5, 1000) / 1000))[:, None].astype(np.float32)
    true = stats.norm.ppf(LEVELS).astype(np.float32)

    def loss(quantiles):
        rows = np.tile(quantiles, (len(z), 1, 1)).astype(np.float32)
        return float(np.mean(distributions.losses(z, rows, "quantiles", LEVELS)))

    assert all(loss(true) < loss(true + d * np.eye(7)[i]) for i in range(7) for d in (-0.1, 0.1))
    with_sklearn = [
        np.mean(np.maximum(q * (z - x), (q - 1) * (z - x)))
        for q, x in zip(LEVELS, true, strict=True)
    ]
    assert loss(true) == pytest.approx(2 * np.mean(with_sklearn), rel=1e-5)


@given(st.lists(st.floats(-30, 30, width=32), min_size=7, max_size=7))
def test_quantiles_never_cross(raw):
    for head in HEADS:
        n = distributions.parameter_count(head, LEVELS)
        p = distributions.to_parameters(np.array([raw[:n]], np.float32), head, LEVELS)
        q = np.asarray(distributions.quantiles_of(p, head, LEVELS))[0]
        assert np.all(np.diff(q) >= 0)
        assert np.isfinite(q).all()


@pytest.mark.parametrize("freedom", [2.1, 3.0, 7.5, 30.0, 60.0])
def test_quantiles_of_student_t(freedom):
    p = np.array([[0.5, 2.0, freedom]], np.float32)
    found = np.asarray(distributions.quantiles_of(p, "student_t", LEVELS))[0]
    np.testing.assert_allclose(found, stats.t.ppf(LEVELS, freedom, 0.5, 2.0), atol=5e-3)


@pytest.mark.parametrize("head", HEADS)
def test_samples_have_the_distribution(head):
    u = np.random.default_rng(0).random((200_000, 2)).astype(np.float32)
    raw = np.tile(distributions.initial_output(head, LEVELS), (len(u), 1))
    p = distributions.to_parameters(raw, head, LEVELS)
    drawn = np.asarray(distributions.sample(u, p, head, LEVELS))
    expected = np.asarray(distributions.quantiles_of(p, head, LEVELS))[0]
    np.testing.assert_allclose(np.quantile(drawn, LEVELS), expected, atol=0.02)


def test_initial_output_has_unit_scale():
    for head in HEADS:
        raw = distributions.initial_output(head, LEVELS)[None]
        q = np.asarray(
            distributions.quantiles_of(distributions.to_parameters(raw, head, LEVELS), head, LEVELS)
        )[0]
        np.testing.assert_allclose(q[[1, 5]], [-1.28, 1.28], atol=0.12)
