"""Models trained on simulated series."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.forecasting import (
    backtest,
    task,
)
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.windows import WindowFeed
from tests.support.forecasting import (
    asked,
    built,
    simulated_garch,
    small,
)


def trained(settings: ForecastingConfig, values, edges, folder, epochs: int = 6):
    from pipelines.engine.core.console import Console
    from pipelines.engine.training import loop

    model, scales, (train, validation, test) = built(settings, values, edges)
    loop.fit(
        model,
        WindowFeed(settings, scales, train, validation),
        task.TASK.objective(settings, scales),
        settings.train.model_copy(update={"epochs": epochs}),
        folder=folder,
        console=Console(),
    )
    _, inputs, targets = asked(settings, scales, test)
    return backtest.to_predictive(model.predict_on_batch(inputs), settings), targets[:, 0]


def test_trained_model_recovers_an_autoregression(tmp_path):
    """y_t = φ y_{t−1} + ε: the mean moves back by φ − 1, and the deviation is that of ε."""
    rng, phi = np.random.default_rng(0), 0.6
    values = np.zeros(3000)
    for t in range(1, len(values)):
        values[t] = phi * values[t - 1] + rng.standard_normal()
    settings = small(
        data={"values": "differences"},
        model={"head": "gaussian", "scale": "training", "level": True, "units": [8], "horizon": 1},
        train={"learning_rate": 0.01, "batch_size": 8, "patience": None},
    )
    found, truth = trained(settings, values, (2200, 2400), tmp_path)
    before = values[np.arange(2399, 2999)]
    slope = np.polyfit(before, found.location[:, 0], 1)[0]
    assert slope == pytest.approx(phi - 1, abs=0.1)
    assert found.scale.mean() == pytest.approx(1.0, abs=0.08)
    inside = np.abs(truth - found.location) < 1.2816 * found.scale
    assert inside.mean() == pytest.approx(0.8, abs=0.05)


def test_trained_model_recovers_a_volatility(tmp_path):
    """Of a GARCH it says how volatile the next step is, better than a constant does."""
    returns, variances = simulated_garch(4000, alpha=0.2, beta=0.75)
    values = 100 * np.exp(np.cumsum(returns))
    settings = small(
        model={"head": "gaussian", "units": [8], "horizon": 1, "history": 40},
        train={"learning_rate": 0.01, "batch_size": 8, "patience": None},
    )
    found, truth = trained(settings, values, (3000, 3400), tmp_path)
    true = np.sqrt(variances[np.arange(3400, 4000)])
    assert np.mean(np.abs(found.scale[:, 0] / true - 1)) < 0.12
    inside = np.abs(truth - found.location) < 1.2816 * found.scale
    assert inside.mean() == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(
    ("head", "values"), [("quantiles", np.full(120, 5.0)), ("student_t", 5.0 + np.arange(120))]
)
def test_constant_and_linear_series_are_continued(tmp_path, head, values):
    settings = small(
        data={"values": "differences"}, model={"head": head, "linear": 5, "scale": "training"}
    )
    found, truth = trained(settings, values, (80, 100), tmp_path, epochs=1)
    assert np.isfinite(found.median()).all()
    np.testing.assert_allclose(found.median(), truth, atol=0.15)
