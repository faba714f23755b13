"""Baselines, compared with `arch`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.forecasting import (
    baselines,
)
from tests.support.forecasting import (
    parts,
    prices,
    series,
    simulated_garch,
    small,
)


def test_garch_recovers_the_simulated_variance():
    returns, variances = simulated_garch(5000)
    levels = np.concatenate([[0.0], np.cumsum(returns)])
    origins = np.arange(4000, 5000)
    scale = baselines.garch("normal")(levels, 4000, origins, 5).scale
    true = np.sqrt(variances[origins])  # of the change after the origin
    assert np.mean(np.abs(scale[:, 0] / true - 1)) < 0.05
    ewma = baselines.ewma_volatility(levels, 4000, origins, 5).scale
    assert np.mean(np.abs(ewma[:, 0] / true - 1)) > np.mean(np.abs(scale[:, 0] / true - 1))


@pytest.mark.parametrize("law", ["normal", "t"])
def test_garch_forecasts_agree_with_arch(law):
    from arch import arch_model

    returns, _ = simulated_garch(800)
    returns *= np.random.default_rng(1).choice([0.7, 1.6], 800)  # heavier tails
    levels = np.concatenate([[0.0], np.cumsum(returns)])
    found = baselines.garch(law)(levels, len(levels), np.array([len(levels) - 1]), 3)
    unit = returns.std()
    fitted = arch_model(returns / unit, dist=law, rescale=False).fit(disp="off")
    variance = np.cumsum(fitted.forecast(horizon=3).variance.to_numpy()[-1])
    if law == "t":
        assert found.freedom == pytest.approx(fitted.params["nu"], rel=1e-3)
        variance *= 1 - 2 / found.freedom
    np.testing.assert_allclose(found.scale[0], unit * np.sqrt(variance), rtol=1e-3)


def test_simple_baselines():
    levels = np.array([1.0, 4.0, 2.0, 5.0, 3.0, 7.0])
    at = np.array([4])
    np.testing.assert_allclose(baselines.drift(levels, 5, at, 2)[0], [[0.5, 1.0]])
    np.testing.assert_allclose(baselines.seasonal(2)(levels, 5, at, 3)[0], [[2.0, 0.0, 2.0]])
    np.testing.assert_allclose(baselines.moving_average(2)(levels, 5, at, 2)[0], [[1.0, 1.0]])
    np.testing.assert_allclose(baselines.last_value(levels, 5, at, 2)[0], [[0.0, 0.0]])


@pytest.mark.parametrize("values", ["constant", "trend", "few"])
def test_baselines_handle_degenerate_series(values):
    made = {
        "constant": np.full(120, 7.0), "trend": 10 + np.arange(120.0), "few": prices(40)
    }[values]  # fmt: skip
    settings = small(data={"values": "differences"}, evaluation={"lags": 5})
    train, validation, test = parts(series(made), len(made) - 20, len(made) - 10)
    for name, found in baselines.forecasts(settings, train, validation, test).items():
        assert np.isfinite(found.location).all(), name
        assert (found.scale > 0).all(), name
        if values == "trend" and name in ("drift", "linear"):
            np.testing.assert_allclose(found.location, [[1, 2, 3]] * 8, rtol=0.02)


def test_baselines_do_not_depend_on_the_future():
    settings = small(evaluation={"lags": 5})
    values = prices(400)
    for poison in (np.nan, 1e6):
        spoiled = values.copy()
        spoiled[380:] = poison if math.isnan(poison) else poison * np.arange(1, 21)
        one, other = (
            baselines.forecasts(settings, *parts(series(v), 300, 350)) for v in (values, spoiled)
        )
        known = 380 - 350 + 1  # origins 349 … 379
        for name in one:
            for kind in ("location", "scale"):
                a, b = (getattr(found[name], kind)[:known] for found in (one, other))
                np.testing.assert_array_equal(a, b, err_msg=name)
